"""Timing modules so that the figures mean something: alone, and many of them fairly against one another.

What makes naive figures wrong on a CPU, and what is done here about it:

* The C library returns large freed tensors to the system after every call, depending on what the process did before,
  and the page faults make the same block two or three times slower. `prime_allocator` ends that.
* A block called again and again finds its weights in the cache, a block inside a network does not. Before every timed
  call another block (the reference) runs and the input is written anew, as the layer before would have done.
* A machine is not equally fast from minute to minute. Every call is divided by the reference's time beside it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

_LARGEST_PRIMING_BYTES = 31 * 2**20
_REFERENCE_CALLS_FIRST = 3


@dataclass(frozen=True)
class Timing:
    """Median and interquartile spread, in milliseconds per call, of `runs` calls."""

    median_ms: float
    spread_ms: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Timing:
        """The timing of single calls."""
        low, median, high = np.percentile(milliseconds, [25, 50, 75])
        return cls(float(median), float(high - low), len(milliseconds))


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


@dataclass(frozen=True)
class FairTimings:
    """Timings of several loads that can be compared and added, and of the reference they were held against."""

    loads: tuple[Timing, ...]
    reference: Timing
    drift: tuple[float, float]
    """Fastest and slowest round of the reference, as multiples of its median."""


def time_fairly(
    loads: Sequence[Load],
    reference: Load,
    *,
    rounds: int,
    calls: int,
    seed: int,
    on_visit: Callable[[], None],
) -> FairTimings:
    """Time loads in interleaved rounds; every round visits all of them in a new order, with `calls` timed calls each.

    A load's figure is the median over all its calls of (its milliseconds / the reference's milliseconds in the same
    visit), times the reference's median over everything. `on_visit` is called after every visit, for progress.
    """
    order, shuffler = list(range(len(loads))), random.Random(seed)
    ratios: list[list[float]] = [[] for _ in loads]
    reference_ms: list[float] = []
    round_ms: list[float] = []
    prime_allocator()
    with torch.inference_mode():
        for _ in range(_REFERENCE_CALLS_FIRST):
            call_ms(reference)
        for _ in range(rounds):
            shuffler.shuffle(order)
            first = len(reference_ms)
            for index in order:
                beside, own = _visit(loads[index], reference, calls)
                ratios[index] += [milliseconds / float(np.median(beside)) for milliseconds in own]
                reference_ms += beside
                on_visit()
            round_ms.append(float(np.median(reference_ms[first:])))
    middle = Timing.of(reference_ms)
    return FairTimings(
        loads=tuple(Timing.of([ratio * middle.median_ms for ratio in row]) for row in ratios),
        reference=middle,
        drift=(min(round_ms) / middle.median_ms, max(round_ms) / middle.median_ms),
    )


def _visit(load: Load, reference: Load, calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the reference and of the load, called in turn."""
    call_ms(load)  # compiles what the library compiles on first use and may have dropped since the last visit
    beside, own = [], []
    for _ in range(calls):
        beside.append(call_ms(reference))
        load.example_input.mul_(1)  # written anew, in place, so that it lies in the cache as a layer's output would
        own.append(call_ms(load))
    return beside, own


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
