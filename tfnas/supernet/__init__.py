"""The weight-sharing supernet: it knows neither how paths are sampled nor what they cost."""

from tfnas.supernet.elastic import ActiveRows, ElasticMBConv
from tfnas.supernet.extract import estimate_batch_norm, extract_network, supernet_from_state
from tfnas.supernet.initialise import share_weights
from tfnas.supernet.routes import Mixture, Path, Route
from tfnas.supernet.supernet import Supernet

__all__ = [
    "ActiveRows",
    "ElasticMBConv",
    "Mixture",
    "Path",
    "Route",
    "Supernet",
    "estimate_batch_norm",
    "extract_network",
    "share_weights",
    "supernet_from_state",
]
