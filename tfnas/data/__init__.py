"""Images to search and train on: embedded digits, image lists, image folders, CIFAR."""

from __future__ import annotations

from tfnas.data.config import DataConfig, DataName, data_name, default_space
from tfnas.data.images import Draw, ImageSet
from tfnas.data.loading import loader
from tfnas.data.opening import ImageData, open_data

__all__ = [
    "DataConfig",
    "DataName",
    "Draw",
    "ImageData",
    "ImageSet",
    "data_name",
    "default_space",
    "loader",
    "open_data",
]
