"""Batches of one epoch, from any batch on: what makes a resumed run see exactly the images it had not seen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import torch
from torch.utils.data import DataLoader, Sampler

from tfnas.data.images import ORDER_STREAM, Draw, ImageSet, derived_seed
from tfnas.errors import InputError

_GRACE_SECONDS = 10
_INPUT_ERROR = f"{InputError.__module__}.{InputError.__qualname__}: "


class EpochBatches(Sampler[list[Draw]]):
    """The draws of an epoch in batches, from batch `first_batch` on; the last partial batch is kept.

    The order is a permutation that is a pure function of (seed, epoch), or the images' own order.
    """

    def __init__(self, count: int, *, batch_size: int, epoch: int, seed: int, first_batch: int, shuffle: bool) -> None:
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}; it must be at least 1")
        self.count = count
        self.batch_size = batch_size
        self.epoch = epoch
        self.seed = seed
        self.first_batch = first_batch
        self.shuffle = shuffle
        batches = -(-count // batch_size)
        if not 0 <= first_batch <= batches:
            raise ValueError(f"first_batch is {first_batch}, but {count} images make {batches} batches")

    def __len__(self) -> int:
        return -(-self.count // self.batch_size) - self.first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        order = torch.arange(self.count)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, ORDER_STREAM, self.epoch))
            order = torch.randperm(self.count, generator=generator)
        for start in range(self.first_batch * self.batch_size, self.count, self.batch_size):
            yield [Draw(self.epoch, index) for index in order[start : start + self.batch_size].tolist()]


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


def loader(
    images: ImageSet, *, batch_size: int, epoch: int, seed: int, first_batch: int = 0, shuffle: bool, workers: int
) -> ImageLoader:
    """Load one epoch's batches: pairs of float32 B x 3 x S x S and int64 B.

    Args:
        images: What to load.
        batch_size: Images per batch; the last batch may be smaller.
        epoch: Number of the epoch, which decides order and augmentation together with the seeds.
        seed: Decides the order if `shuffle`.
        first_batch: Number of the batch to begin with, for a resumed epoch.
        shuffle: Draw a new order every epoch.
        workers: Loader processes; what is loaded does not depend on it. They leave Ctrl-C to this process.
    """
    return ImageLoader(
        images,
        batch_sampler=EpochBatches(
            len(images), batch_size=batch_size, epoch=epoch, seed=seed, first_batch=first_batch, shuffle=shuffle
        ),
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
    signal.alarm(_GRACE_SECONDS)
