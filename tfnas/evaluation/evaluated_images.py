"""The images that a network is tested on, with labels that are numbers of the network's own classes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfnas.core.errors import InputError
from tfnas.data.data_config import RetrainDataConfig
from tfnas.data.image_files import folder_source, read_list
from tfnas.data.image_sets import FileSource, ImageSet, ImageSource
from tfnas.data.opened_data import RetrainData, loader_processes, open_retrain_data, run_images
from tfnas.evaluation.evaluated_model import EvaluatedModel
from tfnas.evaluation.evaluation_config import EvaluationConfig

_SHOWN = 5
_GIVE_SOME = "give images with --val_root (and --val_list)"


@dataclass(frozen=True, eq=False)
class TestSet:
    """Images without augmentation, in their own order, and the words for where they come from."""

    words: str
    images: ImageSet
    workers: int


def open_images(config: EvaluationConfig, model: EvaluatedModel) -> TestSet:
    """The images that the configuration names, or the test images of the network's own run.

    Raises InputError when there are none, or when their classes cannot be told to be the network's.
    """
    source: ImageSource
    if config.val_root is None:
        return _own_images(config, model)
    root = Path(config.val_root)
    if not os.path.isdir(root):  # noqa: PTH112 - answers "no" where Path.is_dir raises
        raise InputError(f"--val_root {root}: there is no such folder; give the one that holds the images")
    if config.val_list is not None:
        source = read_list(Path(config.val_list), root, len(model.class_names), to_train=False)
        words = config.val_list
    else:
        source, words = _folders(root, model), f"folders of {root}"
    images = ImageSet((source,), model.preprocessing.transform(), seed=0)
    return TestSet(words, images, loader_processes(config.workers, "list"))


def _own_images(config: EvaluationConfig, model: EvaluatedModel) -> TestSet:
    data, words = _own_data(model)
    if data.validation is None:
        raise InputError(f"{model.run_dir} has no test images: its data has no such part; {_GIVE_SOME}")
    if config.class_names is None and data.class_names != model.class_names:
        raise InputError(
            f"the images of the run have other classes now ({_few(data.class_names)}) than its network "
            f"({_few(model.class_names)}); {_GIVE_SOME}"
        )
    images = ImageSet(data.validation.sources, model.preprocessing.transform(), seed=0)
    return TestSet(words, images, data.workers if config.workers is None else config.workers)


def _own_data(model: EvaluatedModel) -> tuple[RetrainData, str]:
    """What the network was trained on: its run's data, or the embedded digits for a model without its run."""
    if model.run_dir is not None:
        return run_images(model.run_dir), f"test images of {model.run_dir}"
    if model.data != "digits":
        raise InputError(f"{model.words} has no run directory beside it that would name its images; {_GIVE_SOME}")
    digits = open_retrain_data(RetrainDataConfig(data="digits"), image_size=model.preprocessing.image_size, seed=0)
    if len(model.class_names) == digits.num_classes:  # whatever --class_names has called them
        digits = dataclasses.replace(digits, class_names=model.class_names)
    return digits, "test images of the embedded digits"


def _folders(root: Path, model: EvaluatedModel) -> FileSource:
    """The images in one folder per class. Folders are known by the names of classes; where there are none, by order."""
    source, folders = folder_source(root)
    numbers = {name: number for number, name in enumerate(model.class_names)}
    unknown = [name for name in folders if name not in numbers]
    if not unknown:
        return FileSource(root, source.paths, [numbers[folders[label]] for label in source.labels])
    if model.are_names:
        raise InputError(
            f"--val_root {root}: the network knows no class {_few(unknown)}; its classes are "
            f"{_few(model.class_names)}. Rename the folders, or name the classes in order with --class_names FILE"
        )
    if len(folders) != len(numbers):
        raise InputError(
            f"--val_root {root}: holds {len(folders)} class folders, but the network has {len(numbers)} classes and "
            "no names for them; give all classes, or their names in order with --class_names FILE"
        )
    return source


def _few(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
