"""Timing one call after another: what a figure consists of, and what keeps the machine steady meanwhile.

From visits to milliseconds that can be compared and added.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tfnas.utils.torch_settings import prime_allocator


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


@dataclass(frozen=True)
class TimingSample:
    """What one visit to a case measured: milliseconds of its calls, and of the reference's call before each."""

    own_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]


def reference_timing(visits: Sequence[TimingSample]) -> Timing:
    """Of the reference, over all visits of all cases."""
    return Timing.of([milliseconds for visit in visits for milliseconds in visit.reference_ms])


def normalised_timing(visits: Sequence[TimingSample], reference_ms: float) -> Timing:
    """Of one case: every call is divided by the median of the reference beside it, and multiplied by its usual one.

    `reference_ms` is the median of `reference_timing` over everything measured together.
    """
    beside = np.median([visit.reference_ms for visit in visits], axis=1, keepdims=True)
    ratios = np.array([visit.own_ms for visit in visits]) / beside
    return Timing.of(ratios.ravel() * reference_ms)
