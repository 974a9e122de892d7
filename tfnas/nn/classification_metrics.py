"""Evaluating classifiers on batches of labelled images: top-1, top-5 and loss, in one process or over several.

This is the one evaluation of the package. It counts by itself, since torchmetrics orders equal logits otherwise, adds
losses in float32, takes one network at a time, and takes seconds to import, which a search would wait for.
Sums are whole numbers and float64, so every image counts once, however images are divided among processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.errors import InputError

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor] | list[Tensor]]
"""Images N x 3 x S x S with labels int64 N; a batch may be empty."""
AllReduce: TypeAlias = Callable[[Sequence[float]], list[float]]
"""Adds up numbers over processes, each of which gets the sums."""


class ClassificationMetrics(NamedTuple):
    """What a network achieves on `images` images."""

    top1: float
    """Percent of the images whose own class has the largest logit."""
    top5: float
    """Percent whose own class is among the five largest; with five classes or fewer that is every image."""
    loss: float
    """Mean cross entropy in nats, without label smoothing."""
    images: int


class MetricSums:
    """The sums behind the metrics of one network, or of several on the same images."""

    def __init__(self, device: torch.device, *, num_networks: int = 1, num_classes: int | None = None) -> None:
        self._num_classes = num_classes
        self._images = 0
        self._top1, self._top5 = (torch.zeros(num_networks, dtype=torch.int64, device=device) for _ in range(2))
        self._loss = torch.zeros(num_networks, dtype=torch.float64, device=device)

    def update(self, logits: Iterable[Tensor], labels: Tensor) -> None:
        """Add a batch: the logits (N, classes) of every network, one after another, and labels int64 (N,).

        They are on the device of the sums, and N may be 0. Raises InputError for another number of classes.
        """
        self._images += len(labels)
        for number, rows in zip(range(len(self._loss)), logits, strict=True):
            if self._num_classes not in (None, rows.shape[1]):
                raise InputError(f"the network has {rows.shape[1]} classes, the images have {self._num_classes}")
            ranks = label_ranks(rows, labels)
            self._top1[number] += (ranks < 1).sum()
            self._top5[number] += (ranks < 5).sum()
            self._loss[number] += functional.cross_entropy(rows.double(), labels, reduction="sum")

    def metrics(self, all_reduce: AllReduce = list) -> list[ClassificationMetrics]:
        """The metrics of every network, of the images of all processes.

        With several processes each must call it, with what adds up over them. Raises InputError where there is no
        image at all.
        """
        count = len(self._loss)
        *sums, total = all_reduce([*self._top1.tolist(), *self._top5.tolist(), *self._loss.tolist(), self._images])
        if total == 0:
            raise InputError("there are no evaluation images")
        rows = zip(sums[:count], sums[count : 2 * count], sums[2 * count :], strict=True)
        return [
            ClassificationMetrics(100 * top1 / total, 100 * top5 / total, loss / total, int(total))
            for top1, top5, loss in rows
        ]


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the right one, int64 (N,), of logits (N, classes) and labels int64 (N,).

    Of equal logits the class with the smaller number comes first, as argmax has it. Where a logit is not a number the
    right class comes last.
    """
    own = logits.gather(1, labels[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return torch.where(logits.isnan().any(1), logits.shape[1], before.sum(1))


@torch.no_grad()
def evaluate_networks(
    networks: Callable[[Tensor], Iterable[Tensor]],
    num_networks: int,
    batches: Batches,
    device: torch.device,
    *,
    num_classes: int | None = None,
    all_reduce: AllReduce = list,
) -> list[ClassificationMetrics]:
    """The metrics of several networks that see each batch one after another.

    Args:
        networks: Gives the logits (N, classes) of every network for images on `device`, one after another.
        num_networks: How many these are.
        batches: This process's share of the images.
        device: Where the networks compute.
        num_classes: The number of classes of the images, where it is to be compared with the networks'.
        all_reduce: Adds up over all processes, every one of which must then call this.

    Raises:
        InputError: No process has an image, or a network has another number of classes.
    """
    sums = MetricSums(device, num_networks=num_networks, num_classes=num_classes)
    for images, labels in batches:
        placed = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        sums.update(networks(placed[0]), placed[1])
    return sums.metrics(all_reduce)


def evaluate_batches(
    network: Callable[[Tensor], Tensor],
    batches: Batches,
    device: torch.device,
    *,
    num_classes: int | None = None,
    all_reduce: AllReduce = list,
) -> ClassificationMetrics:
    """The metrics of one network, in the mode that it is in (see `evaluating`); the rest is as `evaluate_networks`."""

    def alone(images: Tensor) -> tuple[Tensor]:
        return (network(images),)

    (found,) = evaluate_networks(alone, 1, batches, device, num_classes=num_classes, all_reduce=all_reduce)
    return found


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
