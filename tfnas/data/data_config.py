"""Settings of the data of a search and of training: the flags, their defaults, and which kind of data uses which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfnas.core.errors import InputError

DataName = Literal["digits", "digit_pairs", "list", "folder", "cifar10", "cifar100"]
BUNDLED: tuple[DataName, ...] = ("digits", "digit_pairs")
"""Data that scikit-learn ships, for which no files are read."""

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
    """Kind of data. Default: `list` if --img_root or a list is given, otherwise the bundled handwritten `digits`.
    `digit_pairs` is bundled too, and harder: which of two digits in an image is read first."""
    img_root: str | None = None
    """Image folder: the root of the paths in lists, or the parent of the class folders or of CIFAR's folders."""
    train_list: str | None = None
    """Image list of the weight-training part, one `path label` per line (--data list)."""
    val_list: str | None = None
    """Image list of the architecture part, one `path label` per line (--data list)."""
    val_ratio: float = 0.2
    """Fraction of each class's training images used for the architecture part (--data folder, cifar10, cifar100)."""
    test_ratio: float = 0.2
    """Fraction of each class reserved for the final test, 0 for none (--data folder)."""
    image_size: int | None = None
    """Side of the square input in pixels. Default: the search space's own."""
    num_classes: int | None = None
    """Number of classes. Default: 100 for `list`, the number of folders for `folder`, otherwise the data set's own."""
    class_names: str | None = None
    """File with one class name per line, in label order."""
    workers: int | None = None
    """Loader processes per part. Default: 0 for data in memory (digits, CIFAR), otherwise the number of cores, up to
    16."""

    @property
    def data_kind(self) -> DataName:
        """The kind of data: --data, or `list` if --img_root or a list is given, else `digits`."""
        if self.data is not None:
            return self.data
        return "digits" if (self.img_root, self.train_list, self.val_list) == (None, None, None) else "list"

    def __post_init__(self) -> None:
        if not 0.0 < self.val_ratio < 1.0:
            raise InputError(f"val_ratio is {self.val_ratio}; give a fraction between 0 and 1, such as 0.2")
        _check_ranges(self)
        self._refuse_idle_flags()

    def _refuse_idle_flags(self) -> None:
        """Refuse flags that this kind of data would silently ignore."""
        name = self.data_kind
        if name in BUNDLED and self.img_root is not None:
            raise InputError(f"--data {name} is bundled and reads no --img_root; omit it or choose another --data")
        for flag, value in (("--train_list", self.train_list), ("--val_list", self.val_list)):
            if name != "list" and value is not None:
                raise InputError(f"--data {name} reads no {flag}; omit it or use --data list")


def _check_ranges(config: DataConfig | RetrainDataConfig) -> None:
    if not 0.0 <= config.test_ratio < 1.0:
        raise InputError(f"test_ratio is {config.test_ratio}; give a fraction between 0 and 1, such as 0.2, or 0")
    for name, least in (("image_size", 1), ("num_classes", 2), ("workers", 0)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}")


def default_space(config: DataConfig) -> str:
    """Name the built-in search space made for this kind of data."""
    return _SPACES[config.data_kind]


_ROOTS = ("train_root", "val_root")
_LISTS = ("train_list", "val_list")
DATA_PATHS = (*_ROOTS, *_LISTS, "class_names")


@dataclass(frozen=True, kw_only=True)
class RetrainDataConfig:
    """Training and evaluation images.

    Raises:
        InputError: A value is outside its range, or a flag is given that this kind of data does not use.
    """

    data: Literal["digits", "digit_pairs", "list", "folder", "cifar10", "cifar100"] | None = None
    """Kind of data. Default: `list` if a list is given, `folder` if only a root is, otherwise the bundled `digits`."""
    train_root: str | None = None
    """Folder of the training images: the root of the paths in lists, or the parent of the class folders or of CIFAR's
    folders. With --model_path or --inherit and no list: the new location of the search's images."""
    val_root: str | None = None
    """Folder of the evaluation images, which are never used for training. Default for lists: --train_root."""
    train_list: str | None = None
    """Image list to train on, one `path label` per line; several, separated by commas, are joined (--data list)."""
    val_list: str | None = None
    """Evaluation image list (--data list)."""
    test_ratio: float = 0.2
    """Fraction of each class used for evaluation if there is no --val_root (--data folder). With a search, at most the
    search's own, which is the default."""
    image_size: int | None = None
    """Side of the square input in pixels. Default: the architecture's own."""
    num_classes: int | None = None
    """Number of classes. Default: that of the data; for lists 1000, or what the search had."""
    class_names: str | None = None
    """File with one class name per line, in label order."""
    workers: int | None = None
    """Loader processes. Default: 0 for data in memory (digits, CIFAR), otherwise the number of cores, up to 16."""

    @property
    def data_kind(self) -> DataName:
        """The kind of data: --data, else the one that the other flags imply, else `digits`."""
        if self.data is not None:
            return self.data
        if self.train_list is not None or self.val_list is not None:
            return "list"
        return "digits" if self.train_root is None and self.val_root is None else "folder"

    def __post_init__(self) -> None:
        _check_ranges(self)
        kind = self.data_kind
        read = {"digits": (), "digit_pairs": (), "list": _ROOTS + _LISTS, "folder": _ROOTS}.get(kind, ("train_root",))
        for name in _ROOTS + _LISTS:
            if getattr(self, name) is not None and name not in read:
                raise InputError(f"--data {kind} reads no --{name}; omit it or choose another --data")
