"""Retraining a derived network: from an architecture to a trained network in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.training.config import TrainConfig

if TYPE_CHECKING:
    from tfnas.training.loop import TrainResult, retrain

__all__ = ["TrainConfig", "TrainResult", "retrain"]

__getattr__ = lazy_names("tfnas.training", {"TrainResult": "tfnas.training.loop", "retrain": "tfnas.training.loop"})
