"""One short recipe for every network: plain stochastic gradient descent on images in memory, and how it is tested."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError, RunFailed
from tfnas.data.data_config import BUNDLED, DataConfig
from tfnas.data.image_sets import ArraySource
from tfnas.data.opened_data import open_parts
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.network import Network

_EVALUATION_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with Nesterov momentum and a cosine to 0 after a short linear warm-up. No augmentation, no smoothing."""

    steps: int
    batch_size: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_steps: int = 20

    def learning_rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        cosine = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.steps))
        return cosine * min(1.0, (step + 1) / self.warmup_steps)


class Images(NamedTuple):
    """Float32 [count, 3, size, size] as networks take them, and int64 labels [count]."""

    pixels: Tensor
    labels: Tensor

    def and_(self, other: Images) -> Images:
        """These and the others."""
        return Images(torch.cat([self.pixels, other.pixels]), torch.cat([self.labels, other.labels]))


@dataclass(frozen=True)
class Data:
    """The parts of a data set."""

    weights: Images
    architecture: Images
    test: Images
    num_classes: int
    fingerprint: str


def open_images(name: str, image_size: int) -> Data:
    """Open embedded data. Raises InputError for any other kind."""
    if name not in BUNDLED:
        raise InputError(f"--data {name}: this benchmark is for embedded data, {' or '.join(BUNDLED)}")
    config = DataConfig(data=name)  # type: ignore[arg-type]
    parts = open_parts(config, image_size)
    preprocessing = Preprocessing.of(name, image_size)  # type: ignore[arg-type]

    digest = hashlib.sha256()

    def images(source: object) -> Images:
        assert isinstance(source, ArraySource)
        digest.update(source.identity() + bytes(source.labels))
        pixels = preprocessing.normalise(source.images).contiguous(memory_format=torch.channels_last)
        return Images(pixels, torch.tensor(source.labels))

    weights, architecture, test = images(parts.weights), images(parts.architecture), images(parts.test)
    return Data(weights, architecture, test, len(parts.class_names), digest.hexdigest()[:8])


def trained(architecture: Architecture, images: Images, recipe: Recipe, seed: int) -> Network:
    """The network after training from fresh weights. Raises RunFailed when the loss is not finite."""
    torch.manual_seed(seed)
    network = Network(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    left = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.steps):
        if len(left) < recipe.batch_size:
            left = torch.randperm(len(images.labels), generator=order)
        batch, left = left[: recipe.batch_size], left[recipe.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step)
        loss = functional.cross_entropy(network(images.pixels[batch]), images.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if not torch.isfinite(loss):
        raise RunFailed(f"training {architecture.to_text()} with seed {seed}: the loss is not finite")
    return network


@torch.inference_mode()
def evaluated(network: Network, images: Images) -> dict[str, float]:
    """Mean cross entropy and top-1 in percent, with running statistics."""
    network.eval()
    loss = correct = 0.0
    batches = (part.split(_EVALUATION_BATCH) for part in (images.pixels, images.labels))
    for pixels, labels in zip(*batches, strict=True):
        logits = network(pixels)
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(1) == labels).sum())
    return {"loss": loss / len(images.labels), "top1": 100 * correct / len(images.labels)}


class Watch:
    """Seconds since it was made: on the clock, and of this process's computing, which others cannot slow down."""

    def __init__(self) -> None:
        self._wall, self._computing = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Both."""
        return {
            "seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(time.process_time() - self._computing, 3),
        }
