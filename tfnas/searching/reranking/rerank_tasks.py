"""Tasks: one number of one candidate each. A task can be pickled and gives the same number in every process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.version import __version__
from tfnas.data.data_config import DataConfig
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.data.opened_data import ImageData, open_data
from tfnas.proxies.score import Score, measure
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.runs.checkpoint import load_checkpoint
from tfnas.runs.search_run import KIND
from tfnas.searching.differentiable.inherited_evaluation import derived_accuracy
from tfnas.searching.reranking.rerank_config import INHERITED
from tfnas.supernet.extract import supernet_from_state
from tfnas.supernet.supernet import Supernet


@dataclass(frozen=True)
class ScoreTask:
    """A zero-shot score, which comes with its definition: other processes may not have it registered."""

    score: Score
    architecture: str
    batch_size: int
    seed: int
    device: str

    @property
    def measure(self) -> str:
        """The name of the score."""
        return self.score.name

    def settings(self) -> dict[str, Any]:
        """Batch size and seed of the inputs, device and versions."""
        return {"batch": self.batch_size, "seed": self.seed, **environment(self.device)}

    def compute(self) -> float:
        """The score of the network with random weights."""
        scored = ScoredNetwork.of(Architecture.parse(self.architecture))
        options = ScoreOptions(batch_size=self.batch_size, seed=self.seed, device=self.device)
        return measure(self.score, scored, options)


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
        """Checkpoint, images and their order (batch norm uses the statistics of each batch), device and versions."""
        images = {"images": self.data_fingerprint, "batch": self.batch_size, "order": self.data_seed}
        return {"checkpoint": self.digest, **images, **environment(self.device)}

    def compute(self) -> float:
        """One-hot depth, batch statistics; channels of a refitted width by the largest depthwise L1 norm."""
        supernet, data = _supernet_and_data(self.checkpoint, self.digest, self.data, self.data_seed, self.device)
        if data.fingerprint != self.data_fingerprint:
            raise InputError(
                "the images are not those of the search: the search has since used others, or files were moved"
            )
        held_out = data.architecture
        # in the order of the search's evaluation
        batches = EpochBatches(len(held_out), batch_size=self.batch_size, epoch=0, seed=self.data_seed)
        workers = data.workers if self.workers is None else self.workers
        architecture = Architecture.parse(self.architecture)
        images = ((pictures, labels) for pictures, labels in loader(held_out, batches, workers=workers))
        return derived_accuracy(supernet, architecture, images, torch.device(self.device))


@lru_cache(maxsize=1)
def _supernet_and_data(
    checkpoint: str, _digest: str, data: DataConfig, data_seed: int, device: str
) -> tuple[Supernet, ImageData]:
    """The supernet of a checkpoint and its images, opened once in a process."""
    supernet = supernet_from_state(load_checkpoint(Path(checkpoint), KIND))
    supernet = supernet.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return supernet, open_data(data, image_size=supernet.space.image_size, seed=data_seed)


def environment(device: str) -> dict[str, str]:
    """Kind of device and versions, on which the last digits of a number depend."""
    return {"device": torch.device(device).type, "tfnas": __version__, "torch": torch.__version__}
