"""How long to time a network: for a certificate a length fixed beforehand, for fitting until it is precise enough.

Sampling that stops as soon as its own interval is narrow stops too early more often than too late, and the interval
then contains the truth less often than stated. So the length of a certificate is chosen from a pilot, whose calls are
not used for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.local_bench import Bench
from tfnas.bench.timing import TimingSample
from tfnas.searching.refitting.certificate import FEWEST_CALLS, Certificate

_SAMPLE_MS = 250.0
_MOST_CALLS = 64
_SAMPLES_AHEAD = 1000
_GROWTH = 1.25
_CAUTION = 1.5
"""Factor on the length estimated from the pilot, which is itself uncertain."""

_LEAST_PILOTS = 3.0
"""Minimum length in pilots: noise as slow as the pilot is only visible in a longer measurement."""


@dataclass
class Budget:
    """Seconds of measuring that are left, by a clock."""

    seconds: float
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class StoppingRule:
    """When to stop sampling: after `least_seconds` as soon as `enough` is true, after `most_seconds` in any case."""

    enough: Callable[[Certificate], bool]
    least_seconds: float
    most_seconds: float


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long to measure for a certificate with a relative `half_width`.

    It is estimated from a pilot of `pilot_seconds`; at most `most_seconds` are used in all.
    """

    half_width: float
    pilot_seconds: float
    most_seconds: float

    def seconds_after(self, pilot_ms: list[float], spent: float) -> float:
        """The seconds of the certificate, from the calls of a pilot that lasted `spent` seconds."""
        left = self.most_seconds - spent
        if len(pilot_ms) < FEWEST_CALLS:
            return left
        pilot = Certificate.of(pilot_ms, spent)
        needed = _CAUTION * spent * (pilot.half_width / self.half_width) ** 2
        return min(max(needed, _LEAST_PILOTS * spent), left)


OnSpent = Callable[[float, float | None], None]
"""Is called after every sample with the seconds spent, and the total (None: not known yet)."""


def measure_fixed(
    samples: Iterator[TimingSample], length: Length, budget: Budget, on_spent: OnSpent = lambda *_: None
) -> Certificate:
    """A certificate of calls over a length that is fixed before the first of them.

    The first sample warms up, and is neither counted nor taken off the budget. At least `FEWEST_CALLS` calls are made,
    even if they take longer than the time allowed.
    """
    next(samples)
    started = budget.clock()
    pilot_ms, spent = _timed_calls(
        samples, length.pilot_seconds, 1, budget.clock, lambda so_far: on_spent(so_far, None)
    )
    chosen = length.seconds_after(pilot_ms, spent)
    own_ms, seconds = _timed_calls(
        samples, chosen, FEWEST_CALLS, budget.clock, lambda so_far: on_spent(spent + so_far, spent + chosen)
    )
    budget.seconds = max(0.0, budget.seconds - (budget.clock() - started))
    return Certificate.of(own_ms, seconds)


def _timed_calls(
    samples: Iterator[TimingSample],
    seconds: float,
    fewest: int,
    clock: Callable[[], float],
    on_spent: Callable[[float], None],
) -> tuple[list[float], float]:
    """Milliseconds of the calls made in so many seconds, at least `fewest`, and the seconds that they took.

    It ends before a sample that would exceed the time if it lasts as long as the longest so far.
    """
    own_ms: list[float] = []
    started, before, longest = clock(), 0.0, 0.0
    for timing in samples:
        own_ms += timing.own_ms
        spent = clock() - started
        longest, before = max(longest, spent - before), spent
        on_spent(spent)
        if spent + longest > seconds and len(own_ms) >= fewest:
            break
    return own_ms, before


def sample(samples: Iterator[TimingSample], until: StoppingRule, budget: Budget) -> Certificate:
    """Sample until the rule is met, for fitting only: the interval of such calls is too narrow.

    The time is taken off the budget, except that of the first sample. At least `FEWEST_CALLS` calls are made.
    """
    first = next(samples)
    own_ms, started = list(first.own_ms), budget.clock()
    next_try = float(FEWEST_CALLS)
    for timing in samples:
        own_ms += timing.own_ms
        if len(own_ms) < FEWEST_CALLS:
            continue
        spent = budget.clock() - started
        if spent >= until.most_seconds:
            break
        if len(own_ms) < next_try:
            continue
        if spent >= until.least_seconds and until.enough(Certificate.of(own_ms, spent)):
            break
        next_try = _GROWTH * len(own_ms)
    spent = budget.clock() - started
    budget.seconds = max(0.0, budget.seconds - spent)
    return Certificate.of(own_ms, spent)


def sample_case(
    bench: Bench, case: BenchmarkCase, expected_ms: float, until: StoppingRule | Length, budget: Budget
) -> Certificate:
    """`sample`, or with a `Length` `measure_fixed`, of a case on a bench, about a quarter of a second per sample."""
    with closing(_samples(bench, case, calls_per_sample(expected_ms))) as samples:
        return measure_fixed(samples, until, budget) if isinstance(until, Length) else sample(samples, until, budget)


def calls_per_sample(expected_ms: float) -> int:
    """Number of calls that take about a quarter of a second."""
    return min(max(round(_SAMPLE_MS / expected_ms), 1), _MOST_CALLS)


def _samples(bench: Bench, case: BenchmarkCase, calls: int) -> Generator[TimingSample, None, None]:
    """Endless samples; a bench that works ahead is asked for a few minutes of them at a time."""
    while True:
        yield from bench.measure([case], [0] * _SAMPLES_AHEAD, calls)
