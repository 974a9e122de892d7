"""Images to search and train on: embedded digits, image lists, image folders, CIFAR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.data.config import DataConfig, DataName, data_name, default_space

if TYPE_CHECKING:
    from tfnas.data.images import Draw, ImageSet
    from tfnas.data.loading import EpochBatches, kept_workers, loader
    from tfnas.data.opening import ImageData, open_data

__all__ = [
    "DataConfig",
    "DataName",
    "Draw",
    "EpochBatches",
    "ImageData",
    "ImageSet",
    "data_name",
    "default_space",
    "kept_workers",
    "loader",
    "open_data",
]

__getattr__ = lazy_names(
    "tfnas.data",
    {
        "Draw": "tfnas.data.images",
        "EpochBatches": "tfnas.data.loading",
        "ImageData": "tfnas.data.opening",
        "ImageSet": "tfnas.data.images",
        "kept_workers": "tfnas.data.loading",
        "loader": "tfnas.data.loading",
        "open_data": "tfnas.data.opening",
    },
)
