"""Opening the data that a search names: its parts, their transforms, and the names of its classes.

The weights part and the architecture part are for the search; the test part is for evaluation only.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfnas.data.bundled_digits import digit_pairs_parts, digits_parts
from tfnas.data.data_config import DataConfig, DataName
from tfnas.data.image_batches import loader_processes
from tfnas.data.image_sets import ImageSet, ImageSource, Parts, WholeSource, check_num_classes, divide, named_classes
from tfnas.data.preprocessing import Preprocessing, training_transform


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
    class_names = named_classes(config.class_names, parts.class_names)
    plain = Preprocessing.of(name, image_size).transform()
    return ImageData(
        name=name,
        weights=ImageSet((parts.weights,), training_transform(name, image_size), seed),
        architecture=ImageSet((parts.architecture,), plain, seed),
        test=None if parts.test is None else ImageSet((parts.test,), plain, seed),
        num_classes=len(parts.class_names),
        class_names=class_names,
        image_size=image_size,
        workers=loader_processes(config.workers, name),
    )


def open_parts(config: DataConfig, image_size: int) -> Parts:
    """Open the kind of data that the configuration names, divided into parts."""
    name = config.data_kind
    if name == "digits":
        parts = digits_parts(image_size)
    elif name == "digit_pairs":
        parts = digit_pairs_parts(image_size)
    else:
        from tfnas.data.image_files import cifar_images, folder_source, image_folder, image_list, list_parts

        root = image_folder(config.img_root, "--img_root", name)
        if name == "list":
            lists = image_list(config.train_list, "--train_list"), image_list(config.val_list, "--val_list")
            parts = list_parts(root, *lists, config.num_classes)
        else:
            whole: WholeSource
            test: ImageSource | None
            if name == "folder":
                (whole, classes), test, where = folder_source(root), None, str(root)
            else:
                whole, test, classes = cifar_images(name, root)
                where = f"{name} in {root}"
            parts = divide(
                whole, test, classes, where, test_share=config.test_ratio, architecture_share=config.val_ratio
            )
    check_num_classes(config.num_classes, name, parts.class_names)
    return parts
