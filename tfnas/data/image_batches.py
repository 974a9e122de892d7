"""Batches of one epoch, from any batch on, so that a resumed run sees exactly the images that it had not seen."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tfnas.core.errors import InputError
from tfnas.data.data_config import DataName
from tfnas.data.image_sets import ORDER_STREAM, Draw, ImageSet, derived_seed
from tfnas.utils.devices import usable_cores

_PROCESSOR = torch.device("cpu")
_GRACE_SECONDS = 10
_MOST_WORKERS = 16
_INPUT_ERROR = f"{InputError.__module__}.{InputError.__qualname__}: "


class Share(NamedTuple):
    """Which process this is, of how many that divide every batch among them."""

    rank: int
    processes: int


WHOLE = Share(0, 1)


class EpochBatches(Sampler[list[Draw]]):
    """The draws of an epoch over `count` images in batches.

    torch's samplers can neither begin an epoch in its middle nor divide every batch among processes without padding it.

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


class ImageLoader:
    """Loads batches: pairs of float32 B x 3 x S x S on `device`, and int64 B.

    Pixels come from the loader processes as uint8, a quarter of the bytes, and are normalised where they are needed.
    """

    def __init__(self, images: ImageSet, batches: EpochBatches, *, workers: int, device: torch.device) -> None:
        self._images, self._batches, self._workers, self._device = images, batches, workers, device

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        readers = _readers
        reader = readers.pop(self._images, None) if readers is not None else None
        if reader is None or not reader.fits(self._workers, self._device):
            reader = _Reader(self._images, workers=self._workers, device=self._device, persistent=readers is not None)
        try:
            for pixels, labels in reader.read(self._batches):
                yield [self._images.transform.normalise(pixels.to(self._device, non_blocking=True)), labels]
        except GeneratorExit:  # whoever asks for no more batches has met no error
            _store(readers, self._images, reader)
            raise
        except InputError as error:
            # of a worker, torch hands on the same class of error, but with a traceback in front of its message
            message = str(error)
            raise InputError(message.partition(_INPUT_ERROR)[2].strip() or message) from None
        _store(readers, self._images, reader)


def loader_processes(workers: int | None, name: DataName) -> int:
    """Return the number of loader processes; images in memory are faster without any."""
    if workers is not None:
        return workers
    return min(_MOST_WORKERS, usable_cores()) if name in ("list", "folder") else 0


def loader(images: ImageSet, batches: EpochBatches, *, workers: int, device: torch.device = _PROCESSOR) -> ImageLoader:
    """Load one epoch's batches: pairs of float32 B x 3 x S x S, and int64 B.

    Args:
        images: What to load.
        batches: Which of them, in what order; the epoch also decides augmentation, together with the images' seed.
        workers: Loader processes; what is loaded does not depend on it. They leave Ctrl-C to this process.
        device: Where images are normalised, and then are. Labels stay here.
    """
    return ImageLoader(images, batches, workers=workers, device=device)


@contextmanager
def persistent_workers() -> Iterator[None]:
    """Inside, loader processes that are done wait for the next epoch of their images; afterwards they end."""
    global _readers
    before, _readers = _readers, {}
    try:
        yield
    finally:
        _readers.clear()
        _readers = before


class _Reader(DataLoader[tuple[torch.Tensor, torch.Tensor]]):
    """The processes that read an image set, epoch after epoch."""

    def __init__(self, images: ImageSet, *, workers: int, device: torch.device, persistent: bool) -> None:
        self.epoch = _EpochSampler()
        super().__init__(
            _Pixels(images),
            batch_sampler=self.epoch,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_parent,
            persistent_workers=persistent and workers > 0,
            # A generator of its own: torch would otherwise draw a number from the caller's global one.
            generator=torch.Generator(),
        )

    def fits(self, workers: int, device: torch.device) -> bool:
        """Whether it reads with so many processes for this device."""
        return self.num_workers == workers and self.pin_memory == (device.type == "cuda")

    def read(self, batches: EpochBatches) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of uint8 pixels with their labels."""
        self.epoch.batches = batches
        yield from self


class _EpochSampler(Sampler[list[Draw]]):
    """The draws of the epoch that is read now."""

    batches: EpochBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches)


@dataclass(frozen=True)
class _Pixels(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """An image set before it is normalised, read in whole batches."""

    images: ImageSet

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images.pixels(draws)


def _as_it_is(batch: Any) -> Any:
    """What has been read is a batch already."""
    return batch


_readers: dict[ImageSet, _Reader] | None = None


def _store(readers: dict[ImageSet, _Reader] | None, images: ImageSet, reader: _Reader) -> None:
    if readers is not None:
        readers[images] = reader


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Leave Ctrl-C and termination to the parent, which saves and then ends its workers.

    `timeout` and batch systems terminate the whole group: a worker goes on for a while then, so that the parent can
    finish its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _go_on_for_a_while)


def _go_on_for_a_while(_number: int, _frame: FrameType | None) -> None:
    """End in a while, whatever is being read then.

    With status 0, like a worker that is asked to end: torch reports any other in the parent, if only as a traceback
    when the program exits. A parent that still waits for batches notices all the same that its worker is gone.
    """
    end = threading.Timer(_GRACE_SECONDS, os._exit, (0,))
    end.daemon = True
    end.start()
