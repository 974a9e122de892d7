"""Timing one thing until its latency is known closely enough, within a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from tfnas.closing.certificate import FEWEST_CALLS, Certificate
from tfnas.latency.measuring.bench import Bench, Visit
from tfnas.latency.measuring.workloads import Workload

_VISIT_MS = 250.0
_MOST_CALLS = 64
_VISITS_AHEAD = 1000
_GROWTH = 1.25


@dataclass
class Budget:
    """Seconds of measuring that may still be spent, by a clock."""

    seconds: float
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Closeness:
    """When to stop measuring: after `least_seconds`, as soon as `enough` says so; after `most_seconds` in any case.

    `enough` must look at the width of the interval, not at the latency: stopping at a welcome value would bias it.
    """

    enough: Callable[[Certificate], bool]
    least_seconds: float
    most_seconds: float


def sample(visits: Iterator[Visit], until: Closeness, budget: Budget) -> Certificate:
    """Take visits until it is enough; their seconds are taken off the budget, but what prepares the first is not.

    `FEWEST_CALLS` are made in any case.
    """
    first = next(visits)
    own_ms, started = list(first.own_ms), budget.clock()
    next_try = float(FEWEST_CALLS)
    for visit in visits:
        own_ms += visit.own_ms
        if len(own_ms) < next_try:
            continue
        spent = budget.clock() - started
        if spent >= until.most_seconds:
            break
        if spent >= until.least_seconds and until.enough(Certificate.of(own_ms, spent)):
            break
        next_try = _GROWTH * len(own_ms)
    spent = budget.clock() - started
    budget.seconds = max(0.0, budget.seconds - spent)
    return Certificate.of(own_ms, spent)


def sample_workload(
    bench: Bench, workload: Workload, expected_ms: float, until: Closeness, budget: Budget
) -> Certificate:
    """`sample` of a workload on a bench; a visit lasts about a quarter of a second by the latency expected."""
    with closing(_visits(bench, workload, calls_per_visit(expected_ms))) as visits:
        return sample(visits, until, budget)


def calls_per_visit(expected_ms: float) -> int:
    """So many that a visit lasts about a quarter of a second."""
    return min(max(round(_VISIT_MS / expected_ms), 1), _MOST_CALLS)


def _visits(bench: Bench, workload: Workload, calls: int) -> Generator[Visit, None, None]:
    """Visits without end; a bench that works ahead is asked for a few minutes of them at a time."""
    while True:
        yield from bench.visits([workload], [0] * _VISITS_AHEAD, calls)
