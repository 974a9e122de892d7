"""How good a network is on a set of images: top-1, top-5 and loss, in one process or over several.

Sums are whole numbers and float64, and torchmetrics adds them up over the processes of the default process group: every
image counts once, however many processes there are and however the images are divided among them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from tfnas.core.errors import InputError


class Scores(NamedTuple):
    """What a network achieves on `images` images."""

    top1: float
    """Percent of the images whose own class has the largest logit."""
    top5: float
    """Percent whose own class is among the five largest; with five classes or fewer that is every image."""
    loss: float
    """Mean cross entropy in nats, without label smoothing."""
    images: int


class _Sums(Metric):
    """Number of images, how many are right, and their summed loss."""

    full_state_update = False
    images: Tensor
    top1: Tensor
    top5: Tensor
    loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "top1", "top5"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        rank = label_ranks(logits, labels)
        self.images = self.images + len(labels)
        self.top1 = self.top1 + (rank < 1).sum()
        self.top5 = self.top5 + (rank < 5).sum()
        self.loss = self.loss + functional.cross_entropy(logits.double(), labels, reduction="sum")

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.images, self.top1, self.top5, self.loss


class Judgement:
    """Gathers a network's logits for labelled images, batch by batch, and says how good they are."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self._sums = _Sums().to(device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in logits (N, classes) and labels int64 (N,), both on this judgement's device; N may be 0.

        Raises InputError when the logits are of another number of classes.
        """
        if logits.shape[1] != self.num_classes:
            raise InputError(f"the network has {logits.shape[1]} classes, the images have {self.num_classes}")
        self._sums.update(logits, labels)

    def compute(self) -> Scores:
        """The scores of all images of all processes; with several, every process must call it, and each gets them.

        Raises InputError when no process had an image.
        """
        with warnings.catch_warnings():
            # A process whose share is empty calls this without an update before, and is right to.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric", category=UserWarning)
            images, top1, top5, loss = (value.item() for value in self._sums.compute())
        if images == 0:
            raise InputError("there are no images to judge the network by")
        return Scores(100 * top1 / images, 100 * top5 / images, loss / images, int(images))


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one, int64 (N,), of logits (N, classes) and labels int64 (N,).

    Of equal logits the class with the smaller number comes first, as argmax has it. Where a logit is not a number the
    right class comes last: such a network knows nothing.
    """
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return torch.where(logits.isnan().any(1), logits.shape[1], before.sum(1))


def judge(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, num_classes: int
) -> Scores:
    """The scores of a network on batches of images and labels, computed on `device`, where the network is.

    The network computes in eval mode without gradients, and is in its own mode again afterwards. With several
    processes each brings its share of the images, which may be none. Raises InputError when there is no image at all.
    """
    judgement = Judgement(num_classes, device)
    with evaluating(network):
        for images, labels in batches:
            placed = images.to(device, non_blocking=True)
            judgement.update(network(placed), labels.to(device, non_blocking=True))
    return judgement.compute()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
