"""The batches of a search: what each process trains on, and what it judges by."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from tfnas.data import EpochBatches, ImageSet, loader
from tfnas.data.images import Draw
from tfnas.data.loading import ImageLoader, Share
from tfnas.searching.setup import Setup


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
        whole=len(images) % setup.schedule.batch_size < setup.processes.number,
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
    """The architecture part in its own order, as WholeBatches deals it to this process."""
    images = setup.data.architecture
    batches = WholeBatches(len(images), setup.schedule.batch_size, setup.processes.share)
    return loader(images, batches, workers=setup.data.workers, device=setup.device)


class WholeBatches(EpochBatches):
    """The images in their own order: the processes take whole batches in turn.

    So batch statistics, and with them every answer, are those that one process would get.
    """

    def __init__(self, count: int, batch_size: int, dealt: Share) -> None:
        super().__init__(count, batch_size=batch_size, epoch=0, seed=None)
        self.dealt = dealt

    def __len__(self) -> int:
        return len(range(self.dealt.rank, super().__len__(), self.dealt.processes))

    def __iter__(self) -> Iterator[list[Draw]]:
        return islice(super().__iter__(), self.dealt.rank, None, self.dealt.processes)
