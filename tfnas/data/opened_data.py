"""Opening the data that a search names: its parts, their transforms, and the names of its classes.

The weights part and the architecture part are for the search; the test part is for evaluation only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig, DataName, RetrainDataConfig
from tfnas.data.digits_and_cifar import cifar_parts, digit_pairs_parts, digits_parts
from tfnas.data.image_sets import ImageSet, Parts
from tfnas.data.preprocessing import Preprocessing, training_transform
from tfnas.utils.devices import usable_cores

_MOST_WORKERS = 16


@dataclass(frozen=True)
class ImageData:
    """Opened data: an augmented part for weights, plain ones for the architecture and (where there is one) the test."""

    name: DataName
    weights: ImageSet
    architecture: ImageSet
    test: ImageSet | None
    num_classes: int
    class_names: tuple[str, ...]
    image_size: int
    workers: int

    @property
    def fingerprint(self) -> str:
        """Short digest of the two parts that a search uses; a resumed run must find the same."""
        return f"{self.weights.fingerprint()}-{self.architecture.fingerprint()}"

    def describe(self) -> str:
        """Say in one line what the data is."""
        counts = f"{len(self.weights)} weight, {len(self.architecture)} architecture"
        if self.test is not None:
            counts += f", {len(self.test)} test"
        return f"{self.name}: {counts} images, {self.num_classes} classes, {self.image_size} px"


def open_data(config: DataConfig, *, image_size: int, seed: int) -> ImageData:
    """Open the data set and check everything that can be known at start.

    Args:
        config: What to open.
        image_size: Side of the square input in pixels.
        seed: Seeds the augmentation; splits do not depend on it.

    Raises:
        InputError: Something is missing, malformed, or does not match.
    """
    name = config.data_kind
    parts = open_parts(config, image_size)
    plain = Preprocessing.of(name, image_size).transform()
    return ImageData(
        name=name,
        weights=ImageSet((parts.weights,), training_transform(name, image_size), seed),
        architecture=ImageSet((parts.architecture,), plain, seed),
        test=None if parts.test is None else ImageSet((parts.test,), plain, seed),
        num_classes=len(parts.class_names),
        class_names=named_classes(config.class_names, parts.class_names),
        image_size=image_size,
        workers=loader_processes(config.workers, name),
    )


def open_parts(config: DataConfig, image_size: int) -> Parts:
    """Open the kind of data that the configuration names."""
    name = config.data_kind
    if name == "digits":
        parts = digits_parts(image_size)
    elif name == "digit_pairs":
        parts = digit_pairs_parts(image_size)
    else:
        from tfnas.data.image_files import folder_parts, image_folder, list_parts

        root = image_folder(config.img_root, "--img_root", name)
        if name == "list":
            parts = list_parts(root, *_lists(config), config.num_classes)
        elif name == "folder":
            parts = folder_parts(root, config.val_ratio, config.test_ratio)
        else:
            parts = cifar_parts(name, root, config.val_ratio)
    check_num_classes(config, name, parts.class_names)
    return parts


def check_num_classes(config: DataConfig | RetrainDataConfig, name: str, classes: tuple[str, ...]) -> None:
    """Raise InputError where --num_classes is another number than the data has."""
    if config.num_classes not in (None, len(classes)):
        raise InputError(
            f"--data {name} has {len(classes)} classes here, but --num_classes is {config.num_classes}; "
            "correct or omit it"
        )


def _lists(config: DataConfig) -> tuple[Path, Path]:
    """Return --train_list and --val_list."""
    if config.train_list is None or config.val_list is None:
        missing = "--train_list" if config.train_list is None else "--val_list"
        raise InputError(f"--data list needs {missing}; for one folder per class use --data folder")
    return Path(config.train_list), Path(config.val_list)


def named_classes(class_names: str | None, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in the file that --class_names names, or the data set's own."""
    if class_names is None:
        return own
    from tfnas.data.image_files import read_text_lines

    path = Path(class_names)
    names = read_text_lines(path, "--class_names")
    if "" in names:
        raise InputError(f"{path}:{names.index('') + 1}: empty line; write one class name per line")
    if len(names) != len(own):
        raise InputError(
            f"--class_names {path}: names {len(names)} classes, but the data has {len(own)}; "
            "correct the file, or set --num_classes"
        )
    return tuple(names)


def loader_processes(workers: int | None, name: DataName) -> int:
    """Return the number of loader processes; images in memory are faster without any."""
    if workers is not None:
        return workers
    return min(_MOST_WORKERS, usable_cores()) if name in ("list", "folder") else 0
