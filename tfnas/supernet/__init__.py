"""The weight-sharing supernet: it knows neither how paths are sampled nor what they cost."""

from tfnas.supernet.active import ActiveSlice
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.extract import estimate_batch_norm, extract_network, supernet_from_state
from tfnas.supernet.routes import Mixture, Path, Route
from tfnas.supernet.supernet import Supernet, share_weights

__all__ = [
    "ActiveSlice",
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
