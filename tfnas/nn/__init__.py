"""Building blocks and the stand-alone network of an architecture."""

from tfnas.nn.blocks import Classifier, ConvBNAct, MBConv
from tfnas.nn.counting import Counts, count
from tfnas.nn.features import FeatureNetwork
from tfnas.nn.network import Network

__all__ = ["Classifier", "ConvBNAct", "Counts", "FeatureNetwork", "MBConv", "Network", "count"]
