"""What is computed of a candidate. A task can be pickled, and gives the same number in whatever process it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.version import __version__
from tfnas.data.data_config import DataConfig
from tfnas.data.loading import EpochBatches, loader
from tfnas.data.opening import ImageData, open_data
from tfnas.runs.checkpoint import load_checkpoint
from tfnas.runs.search_run import KIND
from tfnas.searching.differentiable.derive import derived_accuracy
from tfnas.searching.reranking.rerank_config import INHERITED
from tfnas.supernet.extract import supernet_from_state
from tfnas.supernet.supernet import Supernet


class Task(Protocol):
    """One number of one candidate."""

    @property
    def measure(self) -> str:
        """What the number is called."""

    @property
    def architecture(self) -> str:
        """The text of the architecture it is of."""

    def settings(self) -> dict[str, Any]:
        """All else that decides the number, as plain data."""

    def compute(self) -> float:
        """The number. Raises TfnasError where there is none."""


@dataclass(frozen=True)
class ScoreTask:
    """A zero-shot score."""

    measure: str
    architecture: str
    batch_size: int
    seed: int
    device: str

    def settings(self) -> dict[str, Any]:
        """The inputs' batch and seed, and who computes."""
        return {"batch": self.batch_size, "seed": self.seed, **computed_by(self.device)}

    def compute(self) -> float:
        """The score of the network with random weights."""
        from tfnas.proxies.score import score

        network = Architecture.parse(self.architecture)
        return float(score(self.measure, network, batch_size=self.batch_size, seed=self.seed, device=self.device))


@dataclass(frozen=True)
class InheritedTask:
    """Top-1 in percent on the architecture part with the weights of the supernet in a checkpoint."""

    architecture: str
    checkpoint: str
    digest: str
    data: DataConfig
    data_fingerprint: str
    data_seed: int
    batch_size: int
    device: str
    workers: int | None

    @property
    def measure(self) -> str:
        """`inherited`."""
        return INHERITED

    def settings(self) -> dict[str, Any]:
        """The checkpoint, the images, and who computes: batch norm has the statistics of each batch."""
        images = {"images": self.data_fingerprint, "batch": self.batch_size, "order": self.data_seed}
        return {"checkpoint": self.digest, **images, **computed_by(self.device)}

    def compute(self) -> float:
        """One-hot depth, batch statistics; channels of a refitted width by the largest depthwise L1 norm."""
        supernet, data = _searched(self.checkpoint, self.digest, self.data, self.data_seed, self.device)
        if data.fingerprint != self.data_fingerprint:
            raise InputError(
                "the images are not those of the search: it has judged others by now, or their files moved"
            )
        held_out = data.architecture
        # in the order in which the search judged
        batches = EpochBatches(len(held_out), batch_size=self.batch_size, epoch=0, seed=self.data_seed)
        workers = data.workers if self.workers is None else self.workers
        architecture = Architecture.parse(self.architecture)
        images = ((pictures, labels) for pictures, labels in loader(held_out, batches, workers=workers))
        return derived_accuracy(supernet, architecture, images, torch.device(self.device))


@lru_cache(maxsize=1)
def _searched(
    checkpoint: str, _digest: str, data: DataConfig, data_seed: int, device: str
) -> tuple[Supernet, ImageData]:
    """The supernet of a checkpoint and its images, opened once in a process."""
    supernet = supernet_from_state(load_checkpoint(Path(checkpoint), KIND))
    supernet = supernet.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return supernet, open_data(data, image_size=supernet.space.image_size, seed=data_seed)


def computed_by(device: str) -> dict[str, str]:
    """Who computes a number: the kind of device and the versions, of which the last digits depend on."""
    return {"device": torch.device(device).type, "tfnas": __version__, "torch": torch.__version__}
