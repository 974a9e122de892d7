"""A trained network to ask, whatever file it is in: from square uint8 pictures to probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from tfnas.data.preprocessing import Preprocessing
from tfnas.device import named_device
from tfnas.errors import InputError, RunFailed
from tfnas.evaluation.config import is_onnx
from tfnas.evaluation.predict_config import PredictConfig
from tfnas.model_file import TrainedModel


class Predictor(Protocol):
    """A network with the names of its classes and what it expects of a picture."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names, in the order of the logits."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures are cut."""

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits N x classes of uint8 pictures N x 3 x S x S."""


class TorchPredictor:
    """A model.pt on a device."""

    def __init__(self, model: TrainedModel, device: torch.device) -> None:
        self.class_names = model.class_names
        self.preprocessing = model.preprocessing
        self._device = device
        self._network = model.network().to(device)

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits N x classes of uint8 pictures N x 3 x S x S."""
        with torch.inference_mode():
            logits: Tensor = self._network(self.preprocessing.normalise(pictures).to(self._device))
        return logits.cpu()


class OnnxPredictor:
    """An ONNX file that tfnas export wrote; it normalises by itself."""

    def __init__(self, path: Path, threads: int | None) -> None:
        from tfnas.export.reading import OnnxModel  # onnxruntime takes its time, and a model.pt needs none

        self._model = OnnxModel.load(path, threads=threads)
        self.class_names = self._model.class_names
        self.preprocessing = self._model.preprocessing

    def logits(self, pictures: Tensor) -> Tensor:
        """Logits N x classes of uint8 pictures N x 3 x S x S."""
        return self._model.logits(functional.to_dtype(pictures, torch.float32, scale=True))


def open_predictor(config: PredictConfig) -> Predictor:
    """The network in the file that the configuration names.

    Raises InputError when there is none, when it is damaged, or when its kind cannot compute on the device.
    """
    path = Path(config.model_path)
    if not is_onnx(path):
        return TorchPredictor(TrainedModel.load(path), named_device(config.device))
    check_on_cpu(config.device)
    return OnnxPredictor(path, config.threads)


def check_on_cpu(device: str) -> None:
    """Raise InputError where an ONNX file is to compute elsewhere than on the CPU."""
    if device not in ("auto", "cpu"):
        raise InputError(f"device is {device}, but ONNX files run on the processor here: leave --device out")


def probabilities(predictor: Predictor, pictures: Tensor) -> Tensor:
    """Float64 probabilities N x classes of uint8 pictures N x 3 x S x S.

    Raises RunFailed where the network's outputs are not finite.
    """
    logits = predictor.logits(pictures)
    if not torch.isfinite(logits).all():
        raise RunFailed("the network gives outputs that are not finite: its weights are damaged, or did not train")
    return logits.double().softmax(1)
