"""Asking a trained network for the classes of images; one that cannot be read is named, the others are classified."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfnas.core.errors import InputError, RunFailed
from tfnas.data.image_files import IMAGE_SUFFIXES, images_below
from tfnas.data.image_reading import read_rgb
from tfnas.evaluation.evaluation_config import PredictConfig
from tfnas.evaluation.tested_model import EvaluatedModel, load_evaluated_model
from tfnas.utils.devices import named_device, runtime_settings


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
    model = load_evaluated_model(config, config.threads)
    device = torch.device("cpu") if model.is_exported else named_device(config.device)
    model.network.to(device)
    waiting: list[tuple[str, Tensor | str]] = []
    for image, where in _images(config.images):
        waiting.append((image, _read(image, where, model)))
        if len(waiting) == config.batch_size:
            yield from _predictions(model, waiting, device, config)
            waiting = []
    yield from _predictions(model, waiting, device, config)


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


def _read(image: str, where: str, model: EvaluatedModel) -> Tensor | str:
    """The image, uint8 3 x S x S, or why there is none."""
    if os.path.isdir(image):  # noqa: PTH112
        return f"folder {image} contains no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
    try:
        return model.preprocessing.cut(read_rgb(Path(image), where))
    except InputError as error:
        return str(error).removeprefix(f"{_GIVEN}: ")


def _predictions(
    model: EvaluatedModel, waiting: list[tuple[str, Tensor | str]], device: torch.device, config: PredictConfig
) -> Iterator[Prediction]:
    """Predictions for images that have been read, and the problems of the others, in order."""
    read = [pixels for _, pixels in waiting if isinstance(pixels, Tensor)]
    with runtime_settings(config.threads or torch.get_num_threads(), deterministic=False, float32=True):
        found = iter(_probabilities(model, torch.stack(read), device) if read else ())
    for image, pixels in waiting:
        if isinstance(pixels, str):
            yield Prediction(image, (), pixels)
        else:
            yield Prediction(image, _most_probable(next(found), model.class_names, config.top))


def _probabilities(model: EvaluatedModel, pixels: Tensor, device: torch.device) -> Tensor:
    """Float64 probabilities N x classes of uint8 images N x 3 x S x S.

    Raises RunFailed if the network's outputs are not finite.
    """
    with torch.inference_mode():
        logits: Tensor = model.network(model.preprocessing.normalise(pixels).to(device)).cpu()
    if not torch.isfinite(logits).all():
        raise RunFailed("the network gives outputs that are not finite: its weights are damaged or training diverged")
    return logits.double().softmax(1)


def _most_probable(row: Tensor, names: tuple[str, ...], top: int) -> tuple[ClassProbability, ...]:
    """The `top` most probable classes; of equal ones the first."""
    values, numbers = row.sort(descending=True, stable=True)
    pairs = zip(numbers[:top].tolist(), values[:top].tolist(), strict=True)
    return tuple(ClassProbability(number, names[number], value) for number, value in pairs)
