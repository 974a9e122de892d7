"""What a user may say about the images to retrain on: the flags, their defaults, and which belong to which kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfnas.data.config import DataName
from tfnas.errors import InputError

_ROOTS = ("train_root", "val_root")
_LISTS = ("train_list", "val_list")
DATA_PATHS = (*_ROOTS, *_LISTS, "class_names")


@dataclass(frozen=True, kw_only=True)
class RetrainDataConfig:
    """The images to train on and those to judge by.

    Raises:
        InputError: A value is outside its range, or a flag is given that this kind of data does not use.
    """

    data: Literal["digits", "digit_pairs", "list", "folder", "cifar10", "cifar100"] | None = None
    """Kind of data. Default: `list` if a list is given, `folder` if only a root is, else the embedded `digits`."""
    train_root: str | None = None
    """Folder of the training images: what list lines are relative to, or the parent of the class folders or CIFAR's.
    Alone beside --model_path or --inherit: where the search's images lie now."""
    val_root: str | None = None
    """Folder of the images to judge by, which are never trained on. Default for lists: --train_root."""
    train_list: str | None = None
    """Image list to train on, one `path label` per line; several, separated by commas, are joined (--data list)."""
    val_list: str | None = None
    """Image list to judge by (--data list)."""
    test_ratio: float = 0.2
    """Share of each class to judge by where there is no --val_root (--data folder). With a search, its own; no more."""
    image_size: int | None = None
    """Side of the square input in pixels. Default: the architecture's own."""
    num_classes: int | None = None
    """Number of classes. Default: that of the data; for lists 1000, or what the search had."""
    class_names: str | None = None
    """File with one class name per line, in the order of the labels."""
    workers: int | None = None
    """Loader processes. Default: 0 for data held in memory (digits, CIFAR), else up to 16 of the cores."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.test_ratio < 1.0:
            raise InputError(f"test_ratio is {self.test_ratio}; give a share between 0 and 1, such as 0.2, or 0")
        for name, value, least in (
            ("image_size", self.image_size, 1),
            ("num_classes", self.num_classes, 2),
            ("workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        kind = retrain_data_name(self)
        read = {"digits": (), "digit_pairs": (), "list": _ROOTS + _LISTS, "folder": _ROOTS}.get(kind, ("train_root",))
        for name in _ROOTS + _LISTS:
            if getattr(self, name) is not None and name not in read:
                raise InputError(f"--data {kind} reads no --{name}; leave it out or choose another --data")


def retrain_data_name(config: RetrainDataConfig) -> DataName:
    """Name the kind of data: --data, else what the other flags say, else `digits`."""
    if config.data is not None:
        return config.data
    if config.train_list is not None or config.val_list is not None:
        return "list"
    return "digits" if config.train_root is None and config.val_root is None else "folder"
