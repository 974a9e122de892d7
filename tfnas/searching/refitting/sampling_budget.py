"""Timing one thing: for a certificate as long as was chosen beforehand, for steering until it is known closely enough.

Measuring that ends as soon as its own interval is narrow ends too early more often than too late, and the interval then
holds the truth less often than it says. So the calls of a certificate are made after its length has been chosen, from
calls that are thrown away.
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

_VISIT_MS = 250.0
_MOST_CALLS = 64
_VISITS_AHEAD = 1000
_GROWTH = 1.25
_CAUTION = 1.5
"""So much longer than the pilot says: what it says is itself uncertain."""

_LEAST_PILOTS = 3.0
"""A pilot cannot see noise that lasts as long as itself; a certificate that lasts longer shows some of it."""


@dataclass
class Budget:
    """Seconds of measuring that may still be spent, by a clock."""

    seconds: float
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class StoppingRule:
    """When to stop steering: after `least_seconds`, as soon as `enough` says so; after `most_seconds` in any case."""

    enough: Callable[[Certificate], bool]
    least_seconds: float
    most_seconds: float


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long to measure for a certificate whose interval is to reach `half_width` (a share) to either side.

    A pilot of `pilot_seconds` says how long that takes; with it, `most_seconds` are used at most.
    """

    half_width: float
    pilot_seconds: float
    most_seconds: float

    def seconds_after(self, pilot_ms: list[float], spent: float) -> float:
        """The seconds of the certificate, by the calls of a pilot that lasted `spent` seconds."""
        left = self.most_seconds - spent
        if len(pilot_ms) < FEWEST_CALLS:
            return left
        pilot = Certificate.of(pilot_ms, spent)
        needed = _CAUTION * spent * (pilot.half_width / self.half_width) ** 2
        return min(max(needed, _LEAST_PILOTS * spent), left)


OnSpent = Callable[[float, float | None], None]
"""Is told after every visit how many seconds are spent, and how many it will be in all (None: not known yet)."""


def measure_fixed(
    visits: Iterator[TimingSample], length: Length, budget: Budget, on_spent: OnSpent = lambda *_: None
) -> Certificate:
    """A certificate of calls whose number of seconds was chosen before the first of them was made.

    The first visit prepares, and is neither counted nor taken off the budget. `FEWEST_CALLS` are made in any case, even
    where they take longer than the time allowed.
    """
    next(visits)
    started = budget.clock()
    pilot_ms, spent = _taken(visits, length.pilot_seconds, 1, budget.clock, lambda so_far: on_spent(so_far, None))
    chosen = length.seconds_after(pilot_ms, spent)
    own_ms, seconds = _taken(
        visits, chosen, FEWEST_CALLS, budget.clock, lambda so_far: on_spent(spent + so_far, spent + chosen)
    )
    budget.seconds = max(0.0, budget.seconds - (budget.clock() - started))
    return Certificate.of(own_ms, seconds)


def _taken(
    visits: Iterator[TimingSample],
    seconds: float,
    fewest: int,
    clock: Callable[[], float],
    on_spent: Callable[[float], None],
) -> tuple[list[float], float]:
    """Milliseconds of the calls that are made in so many seconds, `fewest` at least; and the seconds that it took.

    It ends before a visit that would go beyond, if that lasts as long as the longest before.
    """
    own_ms: list[float] = []
    started, before, longest = clock(), 0.0, 0.0
    for visit in visits:
        own_ms += visit.own_ms
        spent = clock() - started
        longest, before = max(longest, spent - before), spent
        on_spent(spent)
        if spent + longest > seconds and len(own_ms) >= fewest:
            break
    return own_ms, before


def sample(visits: Iterator[TimingSample], until: StoppingRule, budget: Budget) -> Certificate:
    """Take visits until it is enough, to steer by: the interval of such calls promises more than it holds.

    Their seconds are taken off the budget, but what prepares the first is not. `FEWEST_CALLS` are made in any case.
    """
    first = next(visits)
    own_ms, started = list(first.own_ms), budget.clock()
    next_try = float(FEWEST_CALLS)
    for visit in visits:
        own_ms += visit.own_ms
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
    """`sample`, or with a length `measure_fixed`, of a case on a bench.

    A visit lasts about a quarter of a second by the latency expected.
    """
    with closing(_visits(bench, case, calls_per_sample(expected_ms))) as visits:
        return measure_fixed(visits, until, budget) if isinstance(until, Length) else sample(visits, until, budget)


def calls_per_sample(expected_ms: float) -> int:
    """So many that a visit lasts about a quarter of a second."""
    return min(max(round(_VISIT_MS / expected_ms), 1), _MOST_CALLS)


def _visits(bench: Bench, case: BenchmarkCase, calls: int) -> Generator[TimingSample, None, None]:
    """Visits without end; a bench that works ahead is asked for a few minutes of them at a time."""
    while True:
        yield from bench.measure([case], [0] * _VISITS_AHEAD, calls)
