"""The one place where calls are timed: single calls, interleaved rounds, and the statistics of their milliseconds.

Everything timed together is called in interleaved rounds, each in a new order, so that a slow minute affects all of it
alike. Benches (`benches.py`) add a reference call before every call, to which it is normalised.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.utils.devices import device_name, named_device, pinned, prime_allocator, torch_threads

_UNEVEN = 1.25
_SLOW = 1.5
_STRETCH = 50


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range, in milliseconds per call, of `runs` calls."""

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


@contextmanager
def steady(threads: int, *, bind: bool = True) -> Iterator[None]:
    """Compute without gradients with so many threads, with `bind` on as many cores, and with freed memory at hand."""
    prime_allocator()
    with torch_threads(threads), pinned(threads) if bind else nullcontext(), torch.inference_mode():
        yield


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done everything that it was asked for; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def call_ms(call: Callable[[], object], wait: Callable[[], None] = lambda: None) -> float:
    """Milliseconds of one call, from idle to idle: `wait` returns when everything that was started is done."""
    wait()
    start = time.perf_counter()
    call()
    wait()
    return (time.perf_counter() - start) * 1e3


def shuffled_rounds(groups: Sequence[range], rounds: int, generator: random.Random) -> list[int]:
    """The order of interleaved rounds: each has every index once, group after group, each in a new order."""
    return [index for _ in range(rounds) for group in groups for index in generator.sample(list(group), len(group))]


@dataclass(frozen=True)
class RoundLimits:
    """Rounds to time calls in: for about `seconds`, but from `fewest` to `most`, after `warm_up` untimed calls each."""

    seconds: float
    fewest: int
    most: int
    warm_up: int = 3


def time_interleaved(
    calls: Sequence[Callable[[], object]],
    limits: RoundLimits,
    *,
    wait: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time calls in interleaved rounds, as many as `limits` allow by what the first round takes."""
    for call in calls:
        for _ in range(limits.warm_up):
            call_ms(call, wait)
    round_ms = sum(call_ms(call, wait) for call in calls)
    rounds = round(min(max(limits.seconds * 1000 / round_ms, limits.fewest), limits.most))
    milliseconds: list[list[float]] = [[] for _ in calls]
    for index in shuffled_rounds([range(len(calls))], rounds, random.Random(0)):
        milliseconds[index].append(call_ms(calls[index], wait))
    return [Timing.of(row) for row in milliseconds]


# ---- whole networks as they are ---------------------------------------------------------------------------------

NETWORK_THREADS = 1
_NETWORK_LIMITS = RoundLimits(seconds=10.0, fewest=5, most=30)


@dataclass(frozen=True)
class NetworkTiming:
    """Milliseconds per batch of a whole network with random weights in float32, channels last."""

    device: str
    """The device, and how much of it is used."""
    device_name: str
    """The name of the processor or GPU alone, as tables have it."""
    batch_size: int
    timing: Timing


def time_network(
    make: Callable[[], nn.Module], image_size: int, batch_sizes: Sequence[int], device: str, seed: int
) -> Iterator[NetworkTiming]:
    """Time batches of these sizes on each device, in a network that `make` builds.

    `device` is `auto` (the processor with one thread, and the GPU if there is one) or one of PyTorch's.
    Raises InputError at once for a device that is not there.
    """
    devices = _devices(device)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = make().eval().to(memory_format=torch.channels_last)
    return (
        _network_timing(network, torch.randn(batch, IMAGE_CHANNELS, image_size, image_size, generator=generator), place)
        for place in devices
        for batch in batch_sizes
    )


def _network_timing(network: nn.Module, images: torch.Tensor, device: torch.device) -> NetworkTiming:
    network.to(device)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    with steady(NETWORK_THREADS, bind=False):
        (timing,) = time_interleaved([lambda: network(images)], _NETWORK_LIMITS, wait=lambda: wait_for(device))
    name = device_name(device)
    words = f"CPU, {NETWORK_THREADS} thread" if device.type == "cpu" else name
    return NetworkTiming(words, name, len(images), timing)


def _devices(name: str) -> list[torch.device]:
    device = named_device(name)
    return [torch.device("cpu"), device] if name == "auto" and device.type == "cuda" else [device]


# ---- calls next to a reference ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimingSample:
    """One measurement of a benchmark case: milliseconds of its calls, and of the reference call before each."""

    own_ms: tuple[float, ...]
    reference_ms: tuple[float, ...]


def reference_timing(samples: Sequence[TimingSample]) -> Timing:
    """Of the reference, over all samples of all cases."""
    return Timing.of([milliseconds for sample in samples for milliseconds in sample.reference_ms])


def normalised_timing(samples: Sequence[TimingSample], reference_ms: float) -> Timing:
    """Of one case: every call is divided by the median of the reference calls next to it, and multiplied by the usual.

    `reference_ms` is the median of `reference_timing` over everything measured together.
    """
    adjacent = np.median([sample.reference_ms for sample in samples], axis=1, keepdims=True)
    ratios = np.array([sample.own_ms for sample in samples]) / adjacent
    return Timing.of(ratios.ravel() * reference_ms)


Measure = Callable[[Sequence[BenchmarkCase], Sequence[int], int], Iterator[TimingSample]]
"""`Bench.measure`, or a journal's, which answers from its file first."""


@dataclass(eq=False)
class InterleavedTiming:
    """All samples so far, by the name of the case.

    `on_measurement` is called after each, for progress and for stopping.
    """

    measure: Measure
    calls: int
    seed: int
    on_measurement: Callable[[], None]
    by_name: dict[str, list[TimingSample]] = field(default_factory=dict)
    in_order: list[TimingSample] = field(default_factory=list)
    repeated: int = 0
    _ratios: dict[str, tuple[int, Timing]] = field(default_factory=dict)

    def run(self, cases: Sequence[BenchmarkCase], rounds: int) -> None:
        """Measure every case once a round, each round in a new order; what was disturbed is measured once more.

        A sample counts as disturbed if the reference next to it was uneven, or far slower than usual.
        """
        shuffler = random.Random(f"{self.seed} {len(self.in_order)}")
        order = shuffled_rounds([range(len(cases))], rounds, shuffler)
        samples = self._measured(cases, order)
        usual_ms = self.reference.median_ms
        disturbed = [place for place, sample in enumerate(samples) if _is_disturbed(sample, usual_ms)]
        shuffler.shuffle(disturbed)
        again = self._measured(cases, [order[place] for place in disturbed])
        self.repeated += len(again)
        for place, sample in zip(disturbed, again, strict=True):
            samples[place] = min(samples[place], sample, key=lambda made: (_is_slow(made, usual_ms), _unevenness(made)))
        for index, sample in zip(order, samples, strict=True):
            self.by_name.setdefault(cases[index].name, []).append(sample)

    def _measured(self, cases: Sequence[BenchmarkCase], order: Sequence[int]) -> list[TimingSample]:
        found = []
        for sample in self.measure(cases, order, self.calls):
            found.append(sample)
            self.in_order.append(sample)
            self.on_measurement()
        return found

    @property
    def reference(self) -> Timing:
        """Of the reference, over everything."""
        return reference_timing(self.in_order)

    @property
    def drift(self) -> tuple[float, float]:
        """The fastest and the slowest stretch of samples, as multiples of the reference's median."""
        starts = range(0, max(1, len(self.in_order) - _STRETCH + 1), _STRETCH)
        stretches = [self.in_order[start : start + _STRETCH] for start in starts]
        medians = [reference_timing(stretch).median_ms for stretch in stretches]
        usual_ms = self.reference.median_ms
        return min(medians) / usual_ms, max(medians) / usual_ms

    def timing(self, case: BenchmarkCase, reference_ms: float) -> Timing:
        """Of one case; `reference_ms` is `reference.median_ms`, asked for once."""
        samples = self.by_name[case.name]
        known = self._ratios.get(case.name)
        if known is None or known[0] < len(samples):
            known = self._ratios[case.name] = len(samples), normalised_timing(samples, 1.0)
        ratio = known[1]
        return Timing(ratio.median_ms * reference_ms, ratio.spread_ms * reference_ms, ratio.runs)


def _unevenness(sample: TimingSample) -> float:
    return max(sample.reference_ms) / min(sample.reference_ms)


def _is_disturbed(sample: TimingSample, usual_ms: float) -> bool:
    return _unevenness(sample) > _UNEVEN or _is_slow(sample, usual_ms)


def _is_slow(sample: TimingSample, usual_ms: float) -> bool:
    return float(np.median(sample.reference_ms)) > _SLOW * usual_ms
