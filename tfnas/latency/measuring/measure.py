"""Timing one call after another: what a figure consists of, and what keeps the machine steady meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_LARGEST_PRIMING_BYTES = 31 * 2**20


@dataclass(frozen=True)
class Timing:
    """Median and interquartile spread, in milliseconds per call, of `runs` calls."""

    median_ms: float
    spread_ms: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float] | NDArray[np.float64]) -> Timing:
        """The timing of single calls."""
        low, median, high = np.percentile(milliseconds, [25, 50, 75])
        return cls(float(median), float(high - low), len(milliseconds))

    @property
    def standard_error_ms(self) -> float:
        """Of the median, as if the calls were independent and nearly normal."""
        return float(np.sqrt(np.pi / 2) * self.spread_ms / 1.349 / np.sqrt(self.runs))


@dataclass(frozen=True)
class Load:
    """A module in evaluation mode and the input it is called with, on one device."""

    module: nn.Module
    example_input: Tensor


def prime_allocator() -> None:
    """Make the C library keep freed tensors of up to 31 MiB for the next call instead of giving them to the system.

    glibc raises its thresholds for this to the largest block freed so far, up to 32 MiB; freeing one of nearly that
    size sets them for good. Without effect, and harmless, elsewhere.
    """
    del_after = torch.empty(_LARGEST_PRIMING_BYTES, dtype=torch.uint8)
    del del_after


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on so many of the cores it may use; afterwards as before.

    Without effect where the system cannot bind threads to cores, and where there are no more cores than threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def call_ms(load: Load) -> float:
    """Milliseconds of one call; on a GPU from idle to idle."""
    _wait_for(load.example_input.device)
    start = time.perf_counter()
    load.module(load.example_input)
    _wait_for(load.example_input.device)
    return (time.perf_counter() - start) * 1e3


def time_network(module: nn.Module, example_input: Tensor, *, runs: int = 30, warmup: int = 5) -> Timing:
    """Time calls of a whole network on the input's device, in evaluation mode, at the present number of threads.

    The module's mode is as before afterwards.
    """
    was_training = module.training
    module.eval()
    load = Load(module, example_input)
    prime_allocator()
    try:
        with torch.inference_mode():
            for _ in range(warmup):
                call_ms(load)
            return Timing.of([call_ms(load) for _ in range(runs)])
    finally:
        module.train(was_training)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
