"""How long and how strongly to train, for each kind of data. For ImageNet: the settings of TF-NAS (ECCV 2020)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfnas.data.config import DataName
from tfnas.errors import InputError

LARGE_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of stochastic gradient descent and of regularisation. `threads` 0 means all cores."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float
    grad_clip: float = 5.0
    warmup_epochs: int = 0
    label_smooth: float = 0.1
    dropout_rate: float = 0.2
    drop_connect_rate: float = 0.2
    threads: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("threads", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name in ("lr", "grad_clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)}")
        for name in ("momentum", "label_smooth", "dropout_rate", "drop_connect_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay must be 0 or more, got {self.weight_decay}")


_IMAGENET = Recipe(epochs=250, batch_size=512, lr=0.2, weight_decay=1e-5)
_PHOTOS = Recipe(epochs=200, batch_size=64, lr=0.05, weight_decay=1e-4)  # thousands of images, not a million
_CIFAR = Recipe(epochs=200, batch_size=128, lr=0.1, weight_decay=5e-4)
_DIGITS = Recipe(
    epochs=20, batch_size=32, lr=0.1, weight_decay=5e-4, dropout_rate=0.0, drop_connect_rate=0.0, threads=1
)

RECIPES: dict[DataName, Recipe] = {
    "list": _IMAGENET,
    "folder": _PHOTOS,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "digits": _DIGITS,
    "digit_pairs": _DIGITS,
}


def recipe_for(name: DataName, said: Mapping[str, Any]) -> Recipe:
    """The recipe of a kind of data with what was said (what is not None) in place.

    A batch of more than 256 images is warmed up for 5 epochs unless said otherwise. Raises InputError for values that
    do not fit.
    """
    recipe = dataclasses.replace(RECIPES[name], **{key: value for key, value in said.items() if value is not None})
    if said.get("warmup_epochs") is None and recipe.batch_size > LARGE_BATCH:
        recipe = dataclasses.replace(recipe, warmup_epochs=5)
    return recipe


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Cosine decay over all epochs (counted from 0), times (epoch + 1) / warmup_epochs during the warm-up."""
    cosine = 0.5 * recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs))
    return cosine * min(1.0, (epoch + 1) / recipe.warmup_epochs) if recipe.warmup_epochs else cosine
