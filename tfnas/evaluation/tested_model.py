"""What is tested: the network of a run, of an exported file or of an architecture and weights, and the images.

The images' labels are numbers of the network's own classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.data.image_batches import loader_processes
from tfnas.data.image_files import FileSource, folder_source, image_folder, read_list
from tfnas.data.image_sets import ImageSet, ImageSource, named_classes
from tfnas.data.preprocessing import Preprocessing
from tfnas.data.retrain_data import RetrainData
from tfnas.evaluation.evaluation_config import RUN_FOLDER, EvaluationConfig, PredictConfig, is_onnx
from tfnas.export.export_report import model_behind
from tfnas.runs.named_model import bundled_images, enclosing_run, open_named_model, run_images
from tfnas.spaces.families import parse_architecture


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A network with its weights, and what is known of its classes and images.

    `are_names` is whether folders can be recognised by `class_names`, which otherwise are only numbers.
    `data` is the kind of data that it was trained on, where that is known.
    """

    description: str
    architecture: NetworkArchitecture
    """With the classes of its weights, at the size of its images."""
    network: nn.Module
    """Takes images that `preprocessing` has cut and normalised."""
    class_names: tuple[str, ...]
    are_names: bool
    preprocessing: Preprocessing
    data: str | None
    run_dir: Path | None
    is_exported: bool = False
    """Whether it is an ONNX file, which runs on the CPU only, on images of one size."""
    kind: str = "float32"
    """The number type that it computes in."""
    warning: str | None = None
    """Why its outputs on this machine may be wrong."""
    results: str = RUN_FOLDER
    """Folder for its results in the run directory."""


class _ExportedNetwork(nn.Module):
    """An ONNX file, run by ONNX Runtime on the CPU, for images with values between 0 and 1."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits N x classes."""
        return self._logits(images)


def open_evaluated_model(config: EvaluationConfig) -> EvaluatedModel:
    """The network that the configuration names, on the CPU.

    Raises InputError when a file is missing or damaged, when weights are of another architecture (naming the layer and
    both shapes), or when the number of classes is not the one that was asked for.
    """
    model = load_evaluated_model(config, config.threads or torch.get_num_threads())
    own, size = model.class_names, model.preprocessing.image_size
    if model.is_exported and config.image_size not in (None, size):
        raise InputError(
            f"--image_size is {config.image_size}, but {model.description} accepts only images of {size} pixels"
        )
    if config.num_classes not in (None, len(own)):
        raise InputError(
            f"--num_classes is {config.num_classes}, but the network ({model.description}) has {len(own)} classes; "
            "the network's own classes are used"
        )
    names = named_classes(config.class_names, own)
    preprocessing = model.preprocessing.at_size(config.image_size)
    return dataclasses.replace(
        model,
        architecture=model.architecture.adapted(image_size=preprocessing.image_size, num_classes=len(names)),
        class_names=names,
        are_names=model.are_names or config.class_names is not None,
        preprocessing=preprocessing,
    )


def load_evaluated_model(config: EvaluationConfig | PredictConfig, threads: int | None) -> EvaluatedModel:
    """The network that the configuration names, on the CPU, with what its file records.

    `threads` is how many CPU threads an exported file runs on (default: all cores). Raises InputError when a file is
    missing or damaged, when weights are of another architecture, or when its kind cannot run on the device.
    """
    path = Path(config.model_path or "")
    if config.weights is None and is_onnx(path):
        return _exported_model(path, config.device, threads)
    named = open_named_model(config, config.weights)
    model, is_own = named.model, config.weights is None
    return EvaluatedModel(
        description=named.words,
        architecture=model.architecture,
        network=model.network(),
        class_names=model.class_names,
        are_names=named.says_pictures and _are_names(model.data, model.class_names),
        preprocessing=model.preprocessing,
        data=model.data if is_own else None,
        run_dir=enclosing_run(named.place) if is_own else None,
    )


def _exported_model(path: Path, device: str, threads: int | None) -> EvaluatedModel:
    """An exported file, which normalises by itself, and whose own images are those of the model that it comes from."""
    if device not in ("auto", "cpu"):
        raise InputError(f"device is {device}, but ONNX files run on the CPU: omit --device")
    from tfnas.export.onnx_model import OnnxModel

    model = OnnxModel.load(path, threads=threads)
    return EvaluatedModel(
        description=str(path),
        architecture=parse_architecture(model.architecture),
        network=_ExportedNetwork(model.logits),
        class_names=model.class_names,
        are_names=_are_names(model.data, model.class_names),
        preprocessing=dataclasses.replace(model.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        data=model.data,
        run_dir=enclosing_run(model_behind(path)),
        is_exported=True,
        kind=model.kind,
        warning=model.warning,
        results=f"{RUN_FOLDER}-{path.stem}",
    )


def _are_names(data: str | None, class_names: tuple[str, ...]) -> bool:
    """Image lists have labels without names, which a model then calls by their numbers."""
    return data != "list" or class_names != tuple(str(number) for number in range(len(class_names)))


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
