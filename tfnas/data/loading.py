"""Batches of one epoch, from any batch on: what makes a resumed run see exactly the images it had not seen."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Sampler

from tfnas.data.images import ORDER_STREAM, Draw, ImageSet, derived_seed
from tfnas.errors import InputError

_GRACE_SECONDS = 10
_INPUT_ERROR = f"{InputError.__module__}.{InputError.__qualname__}: "


class Share(NamedTuple):
    """Which process this is, of how many that divide every batch among them."""

    rank: int
    processes: int


WHOLE = Share(0, 1)


class EpochBatches(Sampler[list[Draw]]):
    """The draws of an epoch over `count` images in batches.

    Args:
        count: How many images there are.
        batch_size: Images per batch; the last batch may be smaller.
        epoch: Number of the epoch.
        seed: The order is a permutation that is a pure function of (seed, epoch); None: the images' own order.
        first_batch: Number of the batch to begin with, for a resumed epoch.
        share: The part of every batch to take, where several processes train together.
        whole: Leave out the last batch if it is smaller.

    Raises InputError for a batch size below 1.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        epoch: int,
        seed: int | None,
        first_batch: int = 0,
        share: Share = WHOLE,
        whole: bool = False,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}; it must be at least 1")
        self.count = count // batch_size * batch_size if whole else count
        self.images = count
        self.batch_size = batch_size
        self.epoch = epoch
        self.seed = seed
        self.first_batch = first_batch
        self.share = share
        batches = -(-self.count // batch_size)
        if not 0 <= first_batch <= batches:
            raise ValueError(f"first_batch is {first_batch}, but {count} images make {batches} batches")

    def __len__(self) -> int:
        return sum(1 for _ in self._shares())

    def __iter__(self) -> Iterator[list[Draw]]:
        order = torch.arange(self.images)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, ORDER_STREAM, self.epoch))
            order = torch.randperm(self.images, generator=generator)
        for places in self._shares():
            yield [Draw(self.epoch, index) for index in order[places].tolist()]

    def _shares(self) -> Iterator[slice]:
        """This process's places in the order, batch by batch; a last batch may have none for it."""
        for start in range(self.first_batch * self.batch_size, self.count, self.batch_size):
            end = min(start + self.batch_size, self.count)
            if start + self.share.rank < end:
                yield slice(start + self.share.rank, end, self.share.processes)


class ImageLoader(DataLoader[tuple[torch.Tensor, int]]):
    """A DataLoader whose input errors read the same from a worker process as from this one.

    torch hands on an error of a worker as the same class, but with the worker's traceback in front of its message.
    """

    def __iter__(self) -> Iterator[list[torch.Tensor]]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:
            message = str(error)
            raise InputError(message.partition(_INPUT_ERROR)[2].strip() or message) from None


def loader(images: ImageSet, batches: EpochBatches, *, workers: int) -> ImageLoader:
    """Load one epoch's batches: pairs of float32 B x 3 x S x S and int64 B.

    Args:
        images: What to load.
        batches: Which of them, in what order; the epoch also decides augmentation, together with the images' seed.
        workers: Loader processes; what is loaded does not depend on it. They leave Ctrl-C to this process.
    """
    return ImageLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_parent,
        # A generator of its own: torch would otherwise draw a number from the caller's global one.
        generator=torch.Generator(),
    )


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Leave Ctrl-C and termination to the parent, which saves and then ends its workers.

    `timeout` and batch systems terminate the whole group: a worker goes on for a while then, so that the parent can
    finish its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _go_on_for_a_while)


def _go_on_for_a_while(_number: int, _frame: FrameType | None) -> None:
    """End in a while, whatever is being read then.

    With status 0, as a worker that has been told to end: torch reports any other in the parent, if only as a traceback
    when the program exits. A parent that still waits for batches notices all the same that its worker is gone.
    """
    end = threading.Timer(_GRACE_SECONDS, os._exit, (0,))
    end.daemon = True
    end.start()
