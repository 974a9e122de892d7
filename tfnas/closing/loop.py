"""The closed loop: widths are fitted again until the network itself, timed as a whole, takes the target.

The sum of blocks in a table is near the truth, not at it: for one network it is off by a factor that hardly changes
from its widths to the next ones. So the network is timed, the factor taken, widths are fitted to the target divided by
it, and again. Operations and depth stay. What is certified at the end are calls that chose no widths.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tfnas.architecture import Architecture
from tfnas.closing.certificate import Certificate, Verdict
from tfnas.closing.sampled import Budget, Closeness, sample_workload
from tfnas.latency.fitting.band import Band
from tfnas.latency.fitting.channels import fit_channels
from tfnas.latency.fitting.fit import WidthCurves, at_widths, fit_widths
from tfnas.latency.measuring.bench import Bench
from tfnas.latency.measuring.workloads import network_workload
from tfnas.latency.table import LatencyTable

PRECISION = 1 / 3
"""Half-width of the interval that is measured for, as a share of epsilon."""

_LEAST_SECONDS = {"fit": 3.0, "certify": 10.0}
_LEAST_SHARES = {"fit": 1 / 30, "certify": 1 / 10}
_NEIGHBOUR = 3.0
"""Points within so many epsilons share their factor: less than their noise divides them."""

_MOST_REPEATS = 2

Purpose = Literal["fit", "certify"]


@dataclass(frozen=True)
class Point:
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
        """As the history of a closed loop holds it."""
        return {
            "purpose": self.purpose,
            "table_ms": self.table_ms,
            "measured_ms": self.found.median_ms,
            "interval_ms": list(self.found.interval_ms),
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

    def closeness(self, purpose: Purpose, left: float) -> Closeness:
        """How long to measure, where so many seconds are left. While fitting, a tenth of what is missing will do."""
        wanted = PRECISION * self.epsilon
        least = min(_LEAST_SECONDS[purpose], _LEAST_SHARES[purpose] * self.seconds)
        if purpose == "certify":
            return Closeness(lambda found: found.half_width <= wanted, least, max(least, left / 2))
        return Closeness(
            lambda found: found.half_width <= max(wanted, self.error(found) / 10),
            least,
            max(least, self.seconds / (4 * self.iterations)),
        )


@dataclass(frozen=True)
class Closed:
    """How a loop ended: the network, its certificate, everything that was timed, and why there was no going on.

    `bounds_ms` is what widths alone reach, by the table and the factor that was measured.
    """

    point: Point
    verdict: Verdict
    points: tuple[Point, ...]
    bounds_ms: tuple[float, float]
    ending: str


@dataclass
class _Loop:
    table: LatencyTable
    bench: Bench
    goal: Goal
    on_point: Callable[[Point], None]
    budget: Budget
    points: list[Point] = field(default_factory=list)

    def measure(self, architecture: Architecture, purpose: Purpose) -> Point:
        """Time a network with fresh calls."""
        table_ms = self.table.architecture_ms(architecture)
        expected_ms = table_ms * (self.factor(table_ms) if self.points else 1.0)
        until = self.goal.closeness(purpose, self.budget.seconds)
        found = sample_workload(self.bench, network_workload(architecture), expected_ms, until, self.budget)
        point = Point(architecture, table_ms, found, purpose)
        self.points.append(point)
        self.on_point(point)
        return point

    def factor(self, table_ms: float) -> float:
        """Measured over predicted around a table latency: of the points there, by how long they were measured.

        They count together, so that the loop does not run after a machine that is faster at times.
        """
        reach = _NEIGHBOUR * self.goal.epsilon
        near = [point for point in self.points if abs(point.table_ms / table_ms - 1) <= reach] or self.points[-1:]
        weights = [point.found.seconds for point in near]
        return float(np.exp(np.average([np.log(point.factor) for point in near], weights=weights)))

    def exhausted(self) -> bool:
        """Whether the fits or the time are used up."""
        fits = sum(point.purpose == "fit" for point in self.points)
        return fits >= self.goal.iterations or self.budget.seconds <= 0

    def nearest(self, purpose: Purpose) -> Point | None:
        """The point whose interval shows the smallest epsilon."""
        points = [point for point in self.points if point.purpose == purpose]
        return min(points, key=lambda point: point.found.supported_epsilon(self.goal.target_ms), default=None)

    def ended(self, ending: str, point: Point | None = None) -> Closed:
        """The result; where nothing was certified yet, the nearest network is, with fresh calls."""
        if point is None:
            point = self.nearest("certify")
        if point is None:
            nearest = self.nearest("fit")
            assert nearest is not None
            point = self.measure(nearest.architecture, "certify")
        low, high = widths_range_ms(point.architecture, self.table)
        verdict = point.found.verdict(self.goal.target_ms, self.goal.epsilon)
        return Closed(point, verdict, tuple(self.points), (low * point.factor, high * point.factor), ending)


def close_loop(
    start: Architecture,
    table: LatencyTable,
    bench: Bench,
    goal: Goal,
    on_point: Callable[[Point], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Closed:
    """Fit and time from a network on until one is certified within epsilon, or until it is clear why none will be.

    `on_point` is told of everything that was timed, `clock` tells the seconds that go by.

    Raises InputError when the table lacks a block.
    """
    loop = _Loop(table, bench, goal, on_point, Budget(goal.seconds, clock))
    architecture = start
    while True:
        point = loop.measure(architecture, "fit")
        if goal.error(point.found) <= goal.epsilon:
            point = loop.measure(architecture, "certify")
            if point.found.verdict(goal.target_ms, goal.epsilon) == "inside":
                return loop.ended("certified", point)
        if loop.exhausted():
            return loop.ended("the fits or the time are used up")
        aim_ms = goal.target_ms / loop.factor(point.table_ms)
        following = fitted_at(architecture, table, aim_ms, goal.epsilon)
        repeats = sum(found.architecture == following for found in loop.points if found.purpose == "fit")
        low, high = widths_range_ms(architecture, table)
        if repeats and not low < aim_ms < high:
            return loop.ended("all widths are at their bounds")
        if repeats > _MOST_REPEATS:
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
