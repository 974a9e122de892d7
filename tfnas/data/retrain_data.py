"""Opening the data of a training run: what trains, what evaluates, and the data of the run that it goes on from.

A search's weights part and architecture part both train; its test part evaluates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import field_types
from tfnas.data.data_config import BUNDLED, DataConfig, DataName, RetrainDataConfig
from tfnas.data.image_batches import loader_processes
from tfnas.data.image_files import FileSource, folder_source, image_folder, image_list, read_list
from tfnas.data.image_sets import ImageSet, ImageSource, check_num_classes, named_classes
from tfnas.data.opened_data import open_parts
from tfnas.data.preprocessing import Preprocessing, training_transform


@dataclass(frozen=True)
class RetrainData:
    """Opened data: the augmented training images, and plain evaluation images where there are any."""

    name: DataName
    train: ImageSet
    validation: ImageSet | None
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    workers: int

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Short digest of both parts; a resumed run must find the same."""
        validation = "none" if self.validation is None else self.validation.fingerprint()
        return f"{self.train.fingerprint()}-{validation}"

    def evaluation_images_in_training(self) -> int:
        """How many of the evaluation images are files that are training images too."""
        return 0 if self.validation is None else len(set(_files(self.validation)).intersection(_files(self.train)))

    def describe(self) -> str:
        """Say in one line what the data is."""
        return self._in_words("no evaluation images", "evaluation images")

    def saved_form(self) -> str:
        """The same as runs store it; those of earlier versions are compared with it, so its words stay."""
        return self._in_words("no images to judge by", "to judge by")

    def _in_words(self, none: str, some: str) -> str:
        evaluation = none if self.validation is None else f"{len(self.validation)} {some}"
        size = self.preprocessing.image_size
        return f"{self.name}: {len(self.train)} training images, {evaluation}, {self.num_classes} classes, {size} px"


def open_retrain_data(
    config: RetrainDataConfig, *, image_size: int, seed: int, augmentations: Sequence[nn.Module] = ()
) -> RetrainData:
    """Open the data set and check everything that can be known at start.

    Args:
        config: What to open.
        image_size: Side of the square input in pixels.
        seed: Seeds the augmentation; splits do not depend on it.
        augmentations: Applied after the data's own augmentation.

    Raises:
        InputError: Something is missing, malformed, or does not match.
    """
    name = config.data_kind
    if name == "list":
        train, validation, own = _listed(config)
    elif name == "folder" and config.val_root is not None:
        train, validation, own = _two_folders(config)
    else:
        train, validation, own = _parts(config, name, image_size)
    transform = training_transform(name, image_size, augmentations)
    preprocessing = Preprocessing.of(name, image_size)
    return RetrainData(
        name=name,
        train=ImageSet(tuple(train), transform, seed),
        validation=None if validation is None else ImageSet((validation,), preprocessing.transform(), seed),
        class_names=named_classes(config.class_names, own),
        preprocessing=preprocessing,
        workers=loader_processes(config.workers, name),
    )


IMAGENET_CLASSES = 1000
Opened = tuple[Sequence[ImageSource], ImageSource | None, tuple[str, ...]]


def _listed(config: RetrainDataConfig) -> Opened:
    train_lists = image_list(config.train_list, "--train_list").split(",")
    count = IMAGENET_CLASSES if config.num_classes is None else config.num_classes
    root = image_folder(config.train_root, "--train_root", "list")
    train = [read_list(Path(listing), root, count) for listing in train_lists]
    validation = None
    if config.val_list is not None:
        val_root = root if config.val_root is None else image_folder(config.val_root, "--val_root", "list")
        validation = read_list(Path(config.val_list), val_root, count, to_train=False)
    elif config.val_root is not None:
        raise InputError("--val_root is given without --val_list, the list of the images in it")
    return train, validation, tuple(str(label) for label in range(count))


def _two_folders(config: RetrainDataConfig) -> Opened:
    train, classes = folder_source(image_folder(config.train_root, "--train_root", "folder"))
    validation, others = folder_source(image_folder(config.val_root, "--val_root", "folder"))
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise InputError(
            f"--train_root {config.train_root} and --val_root {config.val_root} must have the same class folders; "
            f"only one of them has {', '.join(odd[:5])}"
        )
    check_num_classes(config.num_classes, "folder", classes)
    return (train,), validation, classes


def _parts(config: RetrainDataConfig, name: DataName, image_size: int) -> Opened:
    """Those of the search: what trained its weights and its architecture trains now, its test part evaluates."""
    root = None if name in BUNDLED else str(image_folder(config.train_root, "--train_root", name))
    searched = DataConfig(data=name, img_root=root, test_ratio=config.test_ratio, num_classes=config.num_classes)
    parts = open_parts(searched, image_size)
    return (parts.weights, parts.architecture), parts.test, parts.class_names


def _files(images: ImageSet) -> Iterator[str]:
    """The paths of those images that are files."""
    for source in images.sources:
        if isinstance(source, FileSource):
            root = os.path.realpath(source.root)
            yield from (f"{root}/{path}" for path in source.paths)


def data_of_search(saved: Mapping[str, Any], image_size: int, num_classes: int) -> RetrainDataConfig:
    """The data of a search, by the settings in its run directory: both its parts train."""
    lists = [saved.get(name) for name in ("train_list", "val_list")]
    return RetrainDataConfig(
        data=saved.get("data"),
        train_root=saved.get("img_root"),
        train_list=",".join(str(name) for name in lists) if all(lists) else None,
        test_ratio=saved.get("test_ratio", RetrainDataConfig.test_ratio),
        class_names=saved.get("class_names"),
        image_size=image_size,
        num_classes=num_classes,
    )


def data_of_training(saved: Mapping[str, Any], source: str) -> RetrainDataConfig:
    """The data of a training run, by the settings in its run directory. Raises InputError when they are not whole."""
    types = field_types(RetrainDataConfig)
    wrong = sorted(name for name, one in types.items() if name not in saved or not one.accepts(saved[name]))
    if wrong or saved["image_size"] is None:
        raise InputError(f"{source} is no training run: its configuration has no usable {(wrong or ['image_size'])[0]}")
    return RetrainDataConfig(**{name: saved[name] for name in types})


def with_overrides(data: RetrainDataConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a run, with the fields that a user has given instead; as fields by name.

    Another kind, or other lists to train on, are other data: then only the number of classes of lists is taken over.
    Raises InputError for fields that do not fit.
    """
    kind = data.data_kind
    paths = {"train_root", "val_root", "val_list"} & given.keys()
    is_other = given.get("data", kind) != kind or "train_list" in given or (kind in BUNDLED and bool(paths))
    if not is_other:
        return {**vars(data), **given}
    other = RetrainDataConfig(**given)
    classes = {"num_classes": data.num_classes} if other.data_kind == kind == "list" else {}
    return {**vars(other), **classes, **given}
