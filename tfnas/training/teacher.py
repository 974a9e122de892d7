"""Knowledge distillation: a trained network whose answers the student learns beside the labels.

Source of the loss: G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from tfnas.data.preprocessing import Preprocessing
from tfnas.errors import InputError
from tfnas.model_file import TrainedModel
from tfnas.nn.weights import load_weights


class Teacher(nn.Module):
    """Logits (N, classes) for a student's normalised images (N, 3, S, S); the teacher's own normalisation is applied.

    A network that takes values between 0 and 1 has `expects` None.
    """

    def __init__(self, network: nn.Module, given: Preprocessing, expects: Preprocessing | None) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.size = None if expects is None else expects.image_size
        scale, shift = _between(given, expects)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The teacher's logits."""
        seen = images * self.scale + self.shift
        if self.size is not None and self.size != seen.shape[-1]:
            seen = functional.interpolate(seen, size=(self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.network(seen)
        return logits

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002 - a teacher stays as it is
        """Stay in eval mode."""
        return self


class _OnnxNetwork(nn.Module):
    """An exported file, run by ONNX Runtime on the CPU."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of values between 0 and 1."""
        return self.logits(pixels.cpu().float()).to(pixels.device)


def open_teacher(name: str, weights: str | None, given: Preprocessing, num_classes: int) -> Teacher:
    """The teacher called `name` (a path, or a torchvision model with the weights in a file).

    `given` is what the student's images have been through. Raises InputError when there is none of that name, or when
    its classes do not match.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        from tfnas.export.reading import OnnxModel  # loads ONNX Runtime

        exported = OnnxModel.load(path)
        _check_classes(name, len(exported.class_names), num_classes)
        return Teacher(_OnnxNetwork(exported.logits), given, None)
    if path.exists():
        model = TrainedModel.load(path)
        _check_classes(name, len(model.class_names), num_classes)
        return Teacher(model.network(), given, model.preprocessing)
    if name not in torchvision.models.list_models(torchvision.models):
        raise InputError(
            f"--teacher {name}: there is no such file, and torchvision has no classification model of that name"
        )
    if weights is None:
        raise InputError(f"--teacher {name} needs --teacher_weights, a file with its state dict: nothing is downloaded")
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    load_weights(network, weights)
    return Teacher(network, given, given)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the Kullback-Leibler divergence of the student's probabilities at temperature T from the teacher's."""
    goal, own = (logits.float().div(temperature).log_softmax(1) for logits in (teacher, student))
    return temperature**2 * functional.kl_div(own, goal, reduction="batchmean", log_target=True)


def _between(given: Preprocessing, expects: Preprocessing | None) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel that turn one normalisation into another."""
    given_mean, given_std = torch.tensor(given.mean), torch.tensor(given.std)
    if expects is None:
        return given_std, given_mean
    mean, std = torch.tensor(expects.mean), torch.tensor(expects.std)
    return given_std / std, (given_mean - mean) / std


def _check_classes(name: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise InputError(
            f"--teacher {name} knows {found} classes, the data has {wanted}: give one for the same classes"
        )
