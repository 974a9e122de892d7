"""The closed loop: widths are fitted again until the network itself, timed as a whole, takes the target.

The sum of blocks in a table is near the truth, not at it: for one network it is off by a factor that hardly changes
from its widths to the next ones. So the network is timed, the factor taken, widths are fitted to the target divided by
it, and again. Operations and depth stay. A network that seems to be there is certified: by calls of its own, once, so
that no luck of a second or third time decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tfnas.bench.benchmark_cases import network_case
from tfnas.bench.local_bench import Bench
from tfnas.core.architecture import Architecture
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.reachable import Band
from tfnas.latency.widths import WidthCurves, at_widths, fit_channels, fit_widths
from tfnas.searching.refitting.certificate import Certificate, Verdict
from tfnas.searching.refitting.sampling_budget import (
    Budget,
    Length,
    StoppingRule,
    sample_case,
)

PRECISION = 1 / 3
"""Half-width of the interval that is measured for, as a share of epsilon."""

LEAST_SECONDS = 10.0
"""Of a certificate's pilot, where the time budget allows them."""

_LEAST_SECONDS, _LEAST_SHARE = 3.0, 1 / 10
"""Of a fit, and as a share of a small budget: by fewer, a network seems to be at the target that is not."""

_PILOT_SHARE = 1 / 12
_RESERVE = 1 / 5
"""Share of the time that no fit takes, so that a certificate can follow it."""

_NOT_LAST_SHARE = 2 / 3
_NEAR = 1 / 2
"""A network is certified where it seems to be within this share of epsilon: it has one certificate only."""

_FAR = 5.0
"""A network that misses the target by more than so many epsilons is far from it."""

_NEIGHBOUR = 3.0
"""Points within so many epsilons share their factor: less than their noise divides them."""

_MOST_REPEATS = 2

Purpose = Literal["fit", "certify"]


@dataclass(frozen=True)
class Phase:
    """What is timed next: the how manyth of its kind, and for how many seconds at most."""

    purpose: Purpose
    number: int
    most_seconds: float


@dataclass(frozen=True)
class TimedNetwork:
    """A network that was timed: its table's milliseconds, and the certificate of its calls."""

    architecture: Architecture
    table_ms: float
    found: Certificate
    purpose: Purpose

    @property
    def factor(self) -> float:
        """Measured over predicted."""
        return self.found.median_ms / self.table_ms

    def to_json(self) -> dict[str, Any]:
        """As the history of a closed loop holds it; the calls of a fit only steer, and have no interval."""
        interval = {"interval_ms": list(self.found.interval_ms)} if self.purpose == "certify" else {}
        return {
            "purpose": self.purpose,
            "table_ms": self.table_ms,
            "measured_ms": self.found.median_ms,
            **interval,
            "runs": self.found.runs,
            "seconds": self.found.seconds,
            "architecture": self.architecture.to_text(),
        }


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is wanted, and what it may take: so many fits, and seconds of measuring."""

    target_ms: float
    epsilon: float
    iterations: int
    seconds: float

    def error(self, found: Certificate) -> float:
        """The median's distance from the target, relative to it."""
        return abs(found.median_ms / self.target_ms - 1)

    @property
    def closeness(self) -> StoppingRule:
        """How long a fit is measured: a tenth of what is missing will do."""
        wanted = PRECISION * self.epsilon
        least = min(_LEAST_SECONDS, _LEAST_SHARE * self.seconds)
        return StoppingRule(
            lambda found: found.half_width <= max(wanted, self.error(found) / 10),
            least,
            max(least, self.seconds / (4 * self.iterations)),
        )

    def length(self, left: float, *, is_last: bool, missing: float) -> Length:
        """How long a certificate is measured, where so many seconds are left; some of them should serve another.

        A network that is far off needs no close one: half of what is `missing` will do.
        """
        pilot = min(LEAST_SECONDS, _PILOT_SHARE * self.seconds)
        return Length(
            half_width=max(PRECISION * self.epsilon, missing / 2),
            pilot_seconds=min(pilot, left / 4),
            most_seconds=left if is_last else _NOT_LAST_SHARE * left,
        )


@dataclass(frozen=True)
class RefitResult:
    """How a loop ended: the network, its certificate, everything that was timed, and why there was no going on.

    `bounds_ms` is what widths alone reach, by the table and the factor that was measured.
    """

    point: TimedNetwork
    verdict: Verdict
    points: tuple[TimedNetwork, ...]
    bounds_ms: tuple[float, float]
    ending: str

    @property
    def certificates(self) -> int:
        """How many were made: one of each network that seemed to be at the target."""
        return sum(point.purpose == "certify" for point in self.points)


@dataclass
class _Loop:
    table: LatencyTable
    bench: Bench
    goal: Goal
    on_phase: Callable[[Phase], None]
    on_point: Callable[[TimedNetwork], None]
    budget: Budget
    points: list[TimedNetwork] = field(default_factory=list)

    def measure(self, architecture: Architecture, until: StoppingRule | Length) -> TimedNetwork:
        """Time a network with fresh calls; with a length, for a certificate."""
        table_ms = self.table.architecture_ms(architecture)
        expected_ms = table_ms * (self.factor(table_ms) if self.points else 1.0)
        purpose: Purpose = "certify" if isinstance(until, Length) else "fit"
        before = sum(point.purpose == purpose for point in self.points)
        self.on_phase(Phase(purpose, before + 1, until.most_seconds))
        found = sample_case(self.bench, network_case(architecture), expected_ms, until, self.budget)
        point = TimedNetwork(architecture, table_ms, found, purpose)
        self.points.append(point)
        self.on_point(point)
        return point

    def certify(self, architecture: Architecture, *, is_last: bool = False) -> TimedNetwork:
        """The one certificate of a network."""
        assert not self.has_certified(architecture)
        missing = self.missing(self.table.architecture_ms(architecture))
        is_far = missing > _FAR * self.goal.epsilon
        length = self.goal.length(self.budget.seconds, is_last=is_last, missing=missing if is_far else 0.0)
        return self.measure(architecture, length)

    def has_certified(self, architecture: Architecture) -> bool:
        """Whether a network has its certificate."""
        return any(point.purpose == "certify" and point.architecture == architecture for point in self.points)

    def factor(self, table_ms: float) -> float:
        """Measured over predicted around a table latency: of the points there, by how long they were measured.

        They count together, so that the loop does not run after a machine that is faster at times.
        """
        reach = _NEIGHBOUR * self.goal.epsilon
        near = [point for point in self.points if abs(point.table_ms / table_ms - 1) <= reach] or self.points[-1:]
        weights = [point.found.seconds for point in near]
        return float(np.exp(np.average([np.log(point.factor) for point in near], weights=weights)))

    def missing(self, table_ms: float) -> float:
        """How far a network seems to be from the target, relative to it, by all that was measured around it."""
        return abs(self.factor(table_ms) * table_ms / self.goal.target_ms - 1)

    def exhausted(self) -> bool:
        """Whether the fits are used up, or the time that they may take."""
        fits = sum(point.purpose == "fit" for point in self.points)
        return fits >= self.goal.iterations or self.budget.seconds <= _RESERVE * self.goal.seconds

    def ended(self, ending: str) -> RefitResult:
        """The result: the network that was certified last; where none was, the nearest one, with fresh calls.

        Not the one whose certificate looks best: of several, that would be the luckiest.
        """
        point = next((point for point in reversed(self.points) if point.purpose == "certify"), None)
        if point is None:
            nearest = min(self.points, key=lambda point: self.goal.error(point.found))
            point = self.certify(nearest.architecture, is_last=True)
        low, high = widths_range_ms(point.architecture, self.table)
        verdict = point.found.verdict(self.goal.target_ms, self.goal.epsilon)
        bounds_ms = low * point.factor, high * point.factor
        return RefitResult(
            point, verdict, tuple(self.points), bounds_ms, "certified" if verdict == "inside" else ending
        )


def refit_to_target(
    start: Architecture,
    table: LatencyTable,
    bench: Bench,
    goal: Goal,
    on_point: Callable[[TimedNetwork], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    on_phase: Callable[[Phase], None] = lambda _: None,
) -> RefitResult:
    """Fit and time from a network on until one is certified within epsilon, or until it is clear why none will be.

    `on_phase` is told before anything is timed, `on_point` afterwards; `clock` tells the seconds that go by.

    Raises InputError when the table lacks a block.
    """
    loop = _Loop(table, bench, goal, on_phase, on_point, Budget(goal.seconds, clock))
    architecture = start
    while True:
        point = loop.measure(architecture, goal.closeness)
        if loop.missing(point.table_ms) <= _NEAR * goal.epsilon:
            point = loop.certify(architecture)
            if point.found.verdict(goal.target_ms, goal.epsilon) == "inside":
                return loop.ended("certified")
        if loop.exhausted():
            return loop.ended("the fits or the time are used up")
        aim_ms = goal.target_ms / loop.factor(point.table_ms)
        following = fitted_at(architecture, table, aim_ms, goal.epsilon)
        repeats = sum(found.architecture == following for found in loop.points if found.purpose == "fit")
        low, high = widths_range_ms(architecture, table)
        if repeats and not low < aim_ms < high:
            return loop.ended("all widths are at their bounds")
        if repeats > _MOST_REPEATS or loop.has_certified(following):
            return loop.ended("no widths are nearer to the target than those that were timed")
        architecture = following


def fitted_at(architecture: Architecture, table: LatencyTable, aim_ms: float, epsilon: float) -> Architecture:
    """Widths whose table latency is within a quarter of epsilon of the aim, or as near as any are.

    Where the aim lies beyond all widths, the cheapest or dearest ones.
    """
    curves = WidthCurves.of(architecture, table)
    ends = [np.array([end(ms) for ms in curves.ms], dtype=np.int64) for end in (np.argmin, np.argmax)]
    cheapest, dearest = (at_widths(architecture, curves.lows + end * curves.steps) for end in ends)
    if aim_ms <= table.architecture_ms(cheapest):
        return cheapest
    if aim_ms >= table.architecture_ms(dearest):
        return dearest
    slack = epsilon / 4
    if abs(table.architecture_ms(architecture) / aim_ms - 1) <= slack:
        return architecture
    fitted = fit_widths(architecture, table, aim_ms)
    while True:  # ends: a band this wide holds the cheapest or the dearest widths at last
        found = fit_channels(fitted, table, Band((1 - slack) * aim_ms, (1 + slack) * aim_ms))
        if found is not None:
            return found
        slack *= 2


def widths_range_ms(architecture: Architecture, table: LatencyTable) -> tuple[float, float]:
    """Lowest and highest table latency that widths alone reach."""
    curves = WidthCurves.of(architecture, table)
    low, high = (curves.base_ms + sum(float(end(ms)) for ms in curves.ms) for end in (np.min, np.max))
    return low, high
