"""What a user may say about data: the flags, their defaults, and which of them belong to which kind of data.

What a user may say about the images to retrain on: the flags, their defaults, and which belong to which kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfnas.core.errors import InputError

DataName = Literal["digits", "digit_pairs", "list", "folder", "cifar10", "cifar100"]
BUNDLED: tuple[DataName, ...] = ("digits", "digit_pairs")
"""Data that comes along and reads no files."""

_SPACES: dict[DataName, str] = {
    "digits": "digits",
    "digit_pairs": "digits",
    "list": "imagenet",
    "folder": "imagenet",
    "cifar10": "cifar",
    "cifar100": "cifar",
}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images to search on and how to divide them.

    Raises:
        InputError: A value is outside its range, or a flag is given that this kind of data does not use.
    """

    data: Literal["digits", "digit_pairs", "list", "folder", "cifar10", "cifar100"] | None = None
    """Kind of data. Default: `list` if --img_root or a list is given, else the embedded handwritten `digits`.
    `digit_pairs` is embedded too, and harder: which of two digits in an image is read first."""
    img_root: str | None = None
    """Folder that holds the images: what list lines are relative to, the parent of the class folders, or of CIFAR's."""
    train_list: str | None = None
    """Image list of the weight-training part, one `path label` per line (--data list)."""
    val_list: str | None = None
    """Image list of the architecture part, one `path label` per line (--data list)."""
    val_ratio: float = 0.2
    """Share of each class's training images that goes to the architecture part (--data folder, cifar10, cifar100)."""
    test_ratio: float = 0.2
    """Share of each class that is kept for the final test and never used before it, 0 for none (--data folder)."""
    image_size: int | None = None
    """Side of the square input in pixels. Default: the search space's own."""
    num_classes: int | None = None
    """Number of classes. Default: 100 for `list`, the number of class folders for `folder`, the data set's own else."""
    class_names: str | None = None
    """File with one class name per line, in the order of the labels."""
    workers: int | None = None
    """Loader processes per part. Default: 0 for data held in memory (digits, CIFAR), else up to 16 of the cores."""

    def __post_init__(self) -> None:
        if not 0.0 < self.val_ratio < 1.0:
            raise InputError(f"val_ratio is {self.val_ratio}; give a share between 0 and 1, such as 0.2")
        if not 0.0 <= self.test_ratio < 1.0:
            raise InputError(f"test_ratio is {self.test_ratio}; give a share between 0 and 1, such as 0.2, or 0")
        for name, value, least in (
            ("image_size", self.image_size, 1),
            ("num_classes", self.num_classes, 2),
            ("workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        self._refuse_idle_flags()

    def _refuse_idle_flags(self) -> None:
        """Refuse flags that this kind of data would silently ignore."""
        name = data_name(self)
        if name in BUNDLED and self.img_root is not None:
            raise InputError(
                f"--data {name} is embedded and reads no --img_root; leave it out or choose another --data"
            )
        for flag, value in (("--train_list", self.train_list), ("--val_list", self.val_list)):
            if name != "list" and value is not None:
                raise InputError(f"--data {name} reads no {flag}; leave it out or use --data list")


def data_name(config: DataConfig) -> DataName:
    """Name the kind of data: --data, or `list` if --img_root or a list is given, else `digits`."""
    if config.data is not None:
        return config.data
    if (config.img_root, config.train_list, config.val_list) == (None, None, None):
        return "digits"
    return "list"


def default_space(config: DataConfig) -> str:
    """Name the built-in search space made for this kind of data."""
    return _SPACES[data_name(config)]


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
