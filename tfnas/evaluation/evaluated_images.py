"""The images that a network is tested on, with labels that are numbers of the network's own classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tfnas.core.errors import InputError
from tfnas.data.image_files import folder_source, image_folder, read_list
from tfnas.data.image_sets import FileSource, ImageSet, ImageSource
from tfnas.data.opened_data import RetrainData, loader_processes
from tfnas.evaluation.evaluated_model import EvaluatedModel
from tfnas.evaluation.evaluation_config import EvaluationConfig
from tfnas.runs.model_images import bundled_images, run_images

_MOST_NAMED = 5
_GIVE_SOME = "give images with --val_root (and --val_list)"


@dataclass(frozen=True, eq=False)
class TestSet:
    """Images without augmentation, in their own order, and where they come from."""

    description: str
    images: ImageSet
    workers: int


def open_test_set(config: EvaluationConfig, model: EvaluatedModel) -> TestSet:
    """The images that the configuration names, or the test images of the network's own run.

    Raises InputError when there are none, or when their classes do not match the network's.
    """
    sources: tuple[ImageSource, ...]
    if config.val_root is None:
        data, description = _own_data(model)
        sources, workers = _test_part(data, config, model), data.workers
    else:
        sources, description = _given(image_folder(config.val_root, "--val_root", "folder"), config, model)
        workers = loader_processes(None, "list")
    images = ImageSet(sources, model.preprocessing.transform(), seed=0)
    return TestSet(description, images, workers if config.workers is None else config.workers)


def _given(root: Path, config: EvaluationConfig, model: EvaluatedModel) -> tuple[tuple[FileSource], str]:
    """The images in --val_root: those that --val_list names, or one folder per class."""
    if config.val_list is None:
        return (_folders(root, model),), f"folders of {root}"
    return (read_list(Path(config.val_list), root, len(model.class_names), to_train=False),), config.val_list


def _own_data(model: EvaluatedModel) -> tuple[RetrainData, str]:
    """What the network was trained on: its run's data, or the bundled digits for a model without its run."""
    if model.run_dir is not None:
        return run_images(model.run_dir), f"test images of {model.run_dir}"
    if model.data != "digits":
        raise InputError(f"{model.description} has no run directory next to it that names its images; {_GIVE_SOME}")
    return bundled_images(model.class_names, model.preprocessing.image_size), "test images of the bundled digits"


def _test_part(data: RetrainData, config: EvaluationConfig, model: EvaluatedModel) -> tuple[ImageSource, ...]:
    if data.validation is None:
        raise InputError(f"{model.run_dir} has no test images: its data has no such part; {_GIVE_SOME}")
    if config.class_names is None and data.class_names != model.class_names:
        raise InputError(
            f"the images of the run now have other classes ({_few(data.class_names)}) than its network "
            f"({_few(model.class_names)}); {_GIVE_SOME}"
        )
    return data.validation.sources


def _folders(root: Path, model: EvaluatedModel) -> FileSource:
    """The images in one folder per class, which is known by the class's name; where there are no names, by order."""
    source, folders = folder_source(root)
    numbers = {name: number for number, name in enumerate(model.class_names)}
    unknown = [name for name in folders if name not in numbers]
    if not unknown:
        return FileSource(root, source.paths, [numbers[folders[label]] for label in source.labels])
    if model.are_names:
        raise InputError(
            f"--val_root {root}: the network has no class {_few(unknown)}; its classes are "
            f"{_few(model.class_names)}. Rename the folders, or name the classes in order with --class_names FILE"
        )
    if len(folders) != len(numbers):
        raise InputError(
            f"--val_root {root}: contains {len(folders)} class folders, but the network has {len(numbers)} classes and "
            "no names for them; give all classes, or their names in order with --class_names FILE"
        )
    return source


def _few(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
