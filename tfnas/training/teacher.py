"""Knowledge distillation: a trained network whose answers the student learns beside the labels.

Source of the loss: G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.errors import InputError
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.weights import load_weights
from tfnas.runs.model_file import TrainedModel


class Teacher(nn.Module):
    """Logits (N, classes) for a student's normalised images (N, 3, S, S); the teacher's own normalisation is applied.

    A network that takes values between 0 and 1 has `expects` None, and then `size` is the side of its images in pixels
    (None: any).
    """

    def __init__(
        self, network: nn.Module, given: Preprocessing, expects: Preprocessing | None, size: int | None = None
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.size = size if expects is None else expects.image_size
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

    @property
    def digest(self) -> str:
        """Short digest of all that its answers come from."""
        digest = sha256(f"{type(self.network).__name__} {self.size}".encode())
        for name, value in (*self.network.state_dict().items(), ("scale", self.scale), ("shift", self.shift)):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002 - a teacher stays as it is
        """Stay in eval mode."""
        return self


class _OnnxNetwork(nn.Module):
    """An exported file, run by ONNX Runtime on the CPU. `digest` is the file's."""

    def __init__(self, logits: Callable[[Tensor], Tensor], digest: bytes) -> None:
        super().__init__()
        self.logits = logits
        self.register_buffer("digest", torch.frombuffer(bytearray(digest), dtype=torch.uint8))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of values between 0 and 1."""
        return self.logits(pixels.cpu().float()).to(pixels.device)


def open_teacher(
    name: str, weights: str | None, given: Preprocessing, class_names: Sequence[str], threads: int | None = None
) -> Teacher:
    """The teacher called `name` (a path, or a torchvision model with the weights in a file).

    `given` is what the student's images have been through, `threads` how many an exported file runs on (default: all
    cores). Raises InputError when there is none of that name, or when its classes are not these, in this order.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        from tfnas.export.onnx_model import OnnxModel

        exported = OnnxModel.load(path, threads=threads)
        _check_classes(name, exported.class_names, class_names)
        network = _OnnxNetwork(exported.logits, sha256(path.read_bytes()).digest())
        return Teacher(network, given, None, exported.preprocessing.image_size)
    if os.path.exists(path):  # noqa: PTH110 - answers "no" where Path.exists raises
        model = TrainedModel.load(path)
        _check_classes(name, model.class_names, class_names)
        return Teacher(model.network(), given, model.preprocessing)
    if name not in torchvision.models.list_models(torchvision.models):
        raise InputError(
            f"--teacher {name}: there is no such file, and torchvision has no classification model of that name"
        )
    if weights is None:
        raise InputError(f"--teacher {name} needs --teacher_weights, a file with its state dict: nothing is downloaded")
    network = torchvision.models.get_model(name, weights=None, num_classes=len(class_names))
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


def _check_classes(name: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise InputError unless the classes are the same, by name and order where both have names."""
    if len(found) != len(wanted):
        raise InputError(
            f"--teacher {name} knows {len(found)} classes, the data has {len(wanted)}: give one for the same classes"
        )
    numbers = [str(number) for number in range(len(wanted))]
    if numbers in (list(found), list(wanted)):  # of lists, whose classes have no names
        return
    for number, (own, other) in enumerate(zip(found, wanted, strict=True)):
        if own != other:
            raise InputError(
                f"--teacher {name} calls class {number} {own!r}, the data calls it {other!r}: give a teacher for the "
                "same classes in the same order, or name the data's classes as the teacher does with --class_names"
            )
