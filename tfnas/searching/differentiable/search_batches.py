"""Several processes must search as one: what decides the architecture is the same in all of them, or the run ends.

The batches of a search: what each process trains on, and what it judges by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any

from torch import Tensor

from tfnas.core.errors import RunFailed
from tfnas.data.images import Draw, ImageSet
from tfnas.data.loading import EpochBatches, ImageLoader, Share, loader
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.differentiable.search_setup import Setup
from tfnas.searching.differentiable.search_steps import Learner


def check_agreement(learner: Learner, processes: DistributedContext) -> None:
    """Raise RunFailed in a process whose learner is not, bit for bit, that of the first one."""
    if processes.world_size == 1:
        return
    own = fingerprints(learner)
    said = processes.broadcast_bytes(json.dumps(own).encode() if processes.is_rank_zero else None)
    first: dict[str, str] = json.loads(said or b"{}")

    def compare() -> None:
        differing = [name for name in own if own[name] != first.get(name)]
        if differing:
            raise RunFailed(
                f"its {' and '.join(differing)} differ from those of the first process, so the two would derive "
                "different architectures: processors or versions of PyTorch that round differently are the usual "
                "cause. Run on machines that are alike"
            )

    processes.barrier(compare)


def fingerprints(learner: Learner) -> dict[str, str]:
    """Digests, by name, of everything that decides which architecture is derived."""
    alphas, *betas = learner.parameters.parameters()
    return {
        "operation probabilities (alphas)": _digest([alphas]),
        "depth probabilities (betas)": _digest(betas),
        "widths": _digest(active for row in learner.supernet.active_channels() for active in row),
        "weights": _digest(learner.supernet.parameters()),
    }


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(b"|")
    return digest.hexdigest()


_LONG_EPOCH = 100  # steps, beside which judging two batches takes no time


def shared_batches(setup: Setup, images: ImageSet, *, turn: int, first: int = 0) -> ImageLoader:
    """This process's share of every batch of a part, in the order of turn number `turn`, from batch `first` on."""
    batches = shares(setup, images, turn=turn, first=first)
    return loader(images, batches, workers=setup.data.workers, device=setup.device)


def shares(setup: Setup, images: ImageSet, *, turn: int, first: int = 0) -> EpochBatches:
    """Which images these are."""
    return EpochBatches(
        len(images),
        batch_size=setup.schedule.batch_size,
        epoch=turn,
        seed=setup.config.seed,
        # a run that was begun by fewer processes may have trained on a last batch that is left out now
        first_batch=min(first, setup.num_batches(images)),
        share=setup.processes.share,
        whole=len(images) % setup.schedule.batch_size < setup.processes.world_size,
    )


def held_out_batches(setup: Setup, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shares of batches of the architecture part, from number `first` of an epoch, over and over in new orders."""
    images: Any = setup.data.architecture
    turns_per_epoch = setup.steps_per_epoch  # more than an epoch can need
    turn, first = divmod(first, setup.num_batches(images))
    while True:
        for batch in shared_batches(setup, images, turn=epoch * turns_per_epoch + turn, first=first):
            yield batch[0], batch[1]
        turn, first = turn + 1, 0


def judged_batches(setup: Setup) -> ImageLoader:
    """The architecture part, as WholeBatches deals it to this process.

    Its order is drawn once for the whole run: where it stands class by class, so would batch statistics.
    """
    return loader(setup.data.architecture, _judged(setup), workers=setup.data.workers, device=setup.device)


def judged_batch_count(setup: Setup) -> int:
    """How many batches these are."""
    return len(_judged(setup))


def _judged(setup: Setup) -> WholeBatches:
    count, batch_size = len(setup.data.architecture), setup.schedule.batch_size
    return WholeBatches(count, batch_size, setup.processes.share, seed=setup.config.seed)


def probe_batches(setup: Setup) -> Iterator[tuple[Tensor, Tensor]]:
    """Two batches of the architecture part, or one where an epoch is short, as WholeBatches deals them.

    They are drawn once for the whole run, because the part may stand in the order of its classes.
    """
    images, seed, number = setup.data.architecture, setup.config.seed, probe_batch_count(setup)
    batches = WholeBatches(len(images), setup.schedule.batch_size, setup.processes.share, seed=seed, most=number)
    for batch in loader(images, batches, workers=setup.data.workers, device=setup.device):
        yield batch[0], batch[1]


def probe_images(setup: Setup) -> int:
    """How many images those batches hold."""
    return min(len(setup.data.architecture), probe_batch_count(setup) * setup.schedule.batch_size)


def probe_batch_count(setup: Setup) -> int:
    """How many batches of the architecture part are judged after every epoch."""
    return 2 if setup.steps_per_epoch >= _LONG_EPOCH else 1


class WholeBatches(EpochBatches):
    """The images in their own order, or one drawn with a seed: the processes take whole batches in turn.

    So batch statistics, and with them every answer, are those that one process would get. `most` is the number of
    batches that all of them take; default: all there are.
    """

    def __init__(
        self, count: int, batch_size: int, dealt: Share, *, seed: int | None = None, most: int | None = None
    ) -> None:
        super().__init__(count, batch_size=batch_size, epoch=0, seed=seed)
        self.dealt, self.most = dealt, most

    def __len__(self) -> int:
        batches = super().__len__() if self.most is None else min(self.most, super().__len__())
        return len(range(self.dealt.rank, batches, self.dealt.processes))

    def __iter__(self) -> Iterator[list[Draw]]:
        return islice(super().__iter__(), self.dealt.rank, self.most, self.dealt.processes)
