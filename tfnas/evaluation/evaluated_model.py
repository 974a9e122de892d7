"""The network that is tested: that of a training run, or an architecture with weights that lie elsewhere."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.data.opening import named_classes
from tfnas.data.preprocessing import Preprocessing
from tfnas.evaluation.evaluation_config import RUN_FOLDER, EvaluationConfig, is_onnx
from tfnas.evaluation.predicting import check_on_cpu
from tfnas.export.export_report import model_behind
from tfnas.nn.network import Network
from tfnas.nn.weights import WeightsWarning, find_state, load_weights
from tfnas.runs.architecture_source import read_source
from tfnas.runs.model_file import FORMAT, MODEL_FILE, TrainedModel
from tfnas.runs.run_directory import CONFIG_FILE
from tfnas.utils.tensor_file import load_plain

_CLASSIFIER_BIAS = "classifier.linear.bias"


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its weights and all that is known of its classes and pictures.

    `are_names` is whether `class_names` are names that folders can be recognised by, or only the numbers of classes.
    `data` is the kind of data that it was trained on, where that is known.
    """

    words: str
    architecture: Architecture
    """With the classes of its weights, at the size of its pictures."""
    network: nn.Module
    """Takes pictures that `preprocessing` has cut and normalised."""
    class_names: tuple[str, ...]
    are_names: bool
    preprocessing: Preprocessing
    data: str | None
    run_dir: Path | None
    on_cpu: bool = False
    """Whether it computes on the CPU only."""
    kind: str = "float32"
    """The numbers that it computes in."""
    warning: str | None = None
    """Why its answers here may be wrong."""
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


def open_subject(config: EvaluationConfig) -> Subject:
    """The network that the configuration names, on the CPU.

    Raises InputError when a file is missing or damaged, when weights are of another architecture (naming the layer and
    both shapes), or when the number of classes is not the one that was asked for.
    """
    subject = _named(config)
    own = subject.class_names
    if config.num_classes not in (None, len(own)):
        raise InputError(
            f"--num_classes is {config.num_classes}, but the network ({subject.words}) has {len(own)} classes; "
            "images are judged with the network's own classes"
        )
    names = named_classes(config.class_names, own)
    preprocessing = at_size(subject.preprocessing, config.image_size)
    return dataclasses.replace(
        subject,
        architecture=dataclasses.replace(
            subject.architecture, image_size=preprocessing.image_size, num_classes=len(names)
        ),
        class_names=names,
        are_names=subject.are_names or config.class_names is not None,
        preprocessing=preprocessing,
    )


def at_size(preprocessing: Preprocessing, image_size: int | None) -> Preprocessing:
    """The same part of a picture at another number of pixels (None: as it is)."""
    if image_size is None or image_size == preprocessing.image_size:
        return preprocessing
    short_side = round(image_size * preprocessing.short_side / preprocessing.image_size)
    return dataclasses.replace(preprocessing, image_size=image_size, short_side=short_side)


def _named(config: EvaluationConfig) -> Subject:
    if config.weights is not None:
        return _of_weights(config)
    path = Path(config.model_path or "")
    return _of_onnx(path, config) if is_onnx(path) else _of_model(path)


def _of_model(path: Path) -> Subject:
    model = TrainedModel.load(path)
    run_dir = path if os.path.isdir(path) else path.parent  # noqa: PTH112 - answers "no" where Path.is_dir raises
    return Subject(
        words=str(path),
        architecture=model.architecture,
        network=model.network(),
        class_names=model.class_names,
        are_names=_are_names(model.data, model.class_names),
        preprocessing=model.preprocessing,
        data=model.data,
        run_dir=_run(run_dir),
    )


def _of_onnx(path: Path, config: EvaluationConfig) -> Subject:
    """An exported file, which normalises by itself, and whose own images are those of the model that it comes from."""
    check_on_cpu(config.device)
    from tfnas.export.onnx_model import OnnxModel

    model = OnnxModel.load(path, threads=config.threads or torch.get_num_threads())
    size = model.preprocessing.image_size
    if config.image_size not in (None, size):
        raise InputError(f"--image_size is {config.image_size}, but {path} takes images of {size} pixels, no others")
    behind = model_behind(path)
    return Subject(
        words=str(path),
        architecture=Architecture.parse(model.architecture),
        network=_ExportedNetwork(model.logits),
        class_names=model.class_names,
        are_names=_are_names(model.data, model.class_names),
        preprocessing=dataclasses.replace(model.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        data=model.data,
        run_dir=_run(behind if os.path.isdir(behind) else behind.parent),  # noqa: PTH112
        on_cpu=True,
        kind=model.kind,
        warning=model.warning,
        results=f"{RUN_FOLDER}-{path.stem}",
    )


def _run(folder: Path) -> Path | None:
    """The folder, if it is a run's."""
    return folder if os.path.isfile(folder / CONFIG_FILE) else None  # noqa: PTH113


def _of_weights(config: EvaluationConfig) -> Subject:
    assert config.weights is not None
    weights = Path(config.weights)
    named = config.config_path or config.model_path or ""
    try:
        architecture = Architecture.load(named) if config.config_path else _searched(Path(named))
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{named} cannot be read: {error.strerror}") from error
    document = load_plain(weights)
    is_model = isinstance(document, dict) and document.get("format") == FORMAT
    if is_model:
        model = TrainedModel.load(weights)
        names, preprocessing = model.class_names, model.preprocessing
        are_names = _are_names(model.data, names)
    else:
        count = _bias_size(document) or architecture.num_classes
        names, are_names = tuple(str(label) for label in range(count)), False
        preprocessing = Preprocessing.of("list", architecture.image_size)
    network = Network(architecture, num_classes=len(names))
    load_weights(network, weights)
    words = f"{config.weights} in {named}"
    if not is_model:
        words += "; these weights do not say how pictures are normalised: as ImageNet's"
    return Subject(words, architecture, network.eval(), names, are_names, preprocessing, data=None, run_dir=None)


def _searched(path: Path) -> Architecture:
    """The architecture that a path names, whose weights lie elsewhere. Raises InputError where it has its own."""
    if (path / MODEL_FILE).exists() or path.name == MODEL_FILE:
        raise InputError(
            f"--model_path {path} already says network and weights: leave out --weights, or name the network alone by "
            "--config_path (its model.config or architecture.json)"
        )
    return read_source(path, None).architecture


def _bias_size(document: object) -> int | None:
    """The number of classes that weights are for; None where they have no usable classifier, which loading will say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WeightsWarning)  # loading gives it
            bias = find_state(document, "the file").get(_CLASSIFIER_BIAS)
    except InputError:
        return None
    return len(bias) if isinstance(bias, Tensor) and bias.dim() == 1 and len(bias) > 0 else None


def _are_names(data: str | None, class_names: tuple[str, ...]) -> bool:
    """Image lists have labels without names, which a model then calls by their numbers."""
    return data != "list" or class_names != tuple(str(number) for number in range(len(class_names)))
