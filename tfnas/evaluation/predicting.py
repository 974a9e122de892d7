"""Asking a trained network for the classes of images; one that cannot be read is named, the others are classified."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from tfnas.core.errors import InputError, RunFailed
from tfnas.data.image_files import IMAGE_SUFFIXES, images_below
from tfnas.data.image_reading import read_rgb
from tfnas.data.preprocessing import Preprocessing
from tfnas.evaluation.evaluation_config import PredictConfig, is_onnx
from tfnas.runs.model_file import TrainedModel
from tfnas.runs.named_model import open_named_model
from tfnas.utils.devices import named_device
from tfnas.utils.torch_settings import runtime_settings


class Predictor(Protocol):
    """A network with the names of its classes and what it expects of an image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names, in the order of the logits."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared."""

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits N x classes of uint8 images N x 3 x S x S."""


class TorchPredictor:
    """A model.pt on a device."""

    def __init__(self, model: TrainedModel, device: torch.device) -> None:
        self.class_names = model.class_names
        self.preprocessing = model.preprocessing
        self._device = device
        self._network = model.network().to(device)

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits N x classes of uint8 images N x 3 x S x S."""
        with torch.inference_mode():
            logits: Tensor = self._network(self.preprocessing.normalise(pictures).to(self._device))
        return logits.cpu()


class OnnxPredictor:
    """An ONNX file that tfnas export wrote; it normalises by itself."""

    def __init__(self, path: Path, threads: int | None) -> None:
        from tfnas.export.onnx_model import OnnxModel

        self._model = OnnxModel.load(path, threads=threads)
        self.class_names = self._model.class_names
        self.preprocessing = self._model.preprocessing

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits N x classes of uint8 images N x 3 x S x S."""
        return self._model.logits(functional.to_dtype(pictures, torch.float32, scale=True))


def open_predictor(config: PredictConfig) -> Predictor:
    """The network in the file that the configuration names.

    Raises InputError when there is none, when it is damaged, or when its kind cannot compute on the device.
    """
    if config.weights is None and is_onnx(config.model_path or ""):
        check_on_cpu(config.device)
        return OnnxPredictor(Path(config.model_path or ""), config.threads)
    return TorchPredictor(open_named_model(config, config.weights).model, named_device(config.device))


def check_on_cpu(device: str) -> None:
    """Raise InputError where an ONNX file is to run on another device than the CPU."""
    if device not in ("auto", "cpu"):
        raise InputError(f"device is {device}, but ONNX files run on the CPU: omit --device")


def probabilities(predictor: Predictor, pictures: Tensor) -> Tensor:
    """Float64 probabilities N x classes of uint8 images N x 3 x S x S.

    Raises RunFailed if the network's outputs are not finite.
    """
    logits = predictor.logits(pictures)
    if not torch.isfinite(logits).all():
        raise RunFailed("the network gives outputs that are not finite: its weights are damaged or training diverged")
    return logits.double().softmax(1)


@dataclass(frozen=True)
class ClassProbability:
    """A class by its number and name, and its probability (0 to 1)."""

    number: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, the most probable first; or why there are none."""

    image: str
    classes: tuple[ClassProbability, ...]
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a line of JSON: `image` with `classes`, or with `problem`."""
        if self.problem is not None:
            return {"image": self.image, "problem": self.problem}
        return {"image": self.image, "classes": [vars(found) for found in self.classes]}


def predict(config: PredictConfig) -> Iterator[Prediction]:
    """The predictions in the order of the images, read and computed batch by batch.

    Raises:
        InputError: The model is missing or damaged. For an image that is, the prediction has a problem.
        RunFailed: The network's outputs are not finite.
    """
    predictor = open_predictor(config)
    waiting: list[tuple[str, Tensor | str]] = []
    for image, where in _images(config.images):
        waiting.append((image, _read(image, where, predictor)))
        if len(waiting) == config.batch_size:
            yield from _predictions(predictor, waiting, config)
            waiting = []
    yield from _predictions(predictor, waiting, config)


_GIVEN = "IMAGE"  # in place of the folder that named an image


def _images(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Paths of images, and what named them. A folder without any is passed on, so that it is reported as unreadable."""
    for name in given:
        if not os.path.isdir(name):  # noqa: PTH112 - answers "no" where Path.is_dir raises
            yield name, _GIVEN
            continue
        found = False
        for path in images_below(name):
            found = True
            yield str(path), f"folder {name}"
        if not found:
            yield name, _GIVEN


def _read(image: str, where: str, predictor: Predictor) -> Tensor | str:
    """The image, uint8 3 x S x S, or why there is none."""
    if os.path.isdir(image):  # noqa: PTH112
        return f"folder {image} contains no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
    try:
        return predictor.preprocessing.cut(read_rgb(Path(image), where))
    except InputError as error:
        return str(error).removeprefix(f"{_GIVEN}: ")


def _predictions(
    predictor: Predictor, waiting: list[tuple[str, Tensor | str]], config: PredictConfig
) -> Iterator[Prediction]:
    """Predictions for images that have been read, and the problems of the others, in order."""
    pictures = [picture for _, picture in waiting if isinstance(picture, Tensor)]
    with runtime_settings(config.threads or torch.get_num_threads(), deterministic=False, float32=True):
        found = iter(probabilities(predictor, torch.stack(pictures)) if pictures else ())
    for image, picture in waiting:
        if isinstance(picture, str):
            yield Prediction(image, (), picture)
        else:
            yield Prediction(image, _most_probable(next(found), predictor.class_names, config.top))


def _most_probable(row: Tensor, names: tuple[str, ...], top: int) -> tuple[ClassProbability, ...]:
    """The `top` most probable classes; of equal ones the first."""
    values, numbers = row.sort(descending=True, stable=True)
    pairs = zip(numbers[:top].tolist(), values[:top].tolist(), strict=True)
    return tuple(ClassProbability(number, names[number], value) for number, value in pairs)
