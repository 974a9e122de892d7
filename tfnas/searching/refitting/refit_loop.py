"""Hardware-in-the-loop refit: widths are fitted again until the whole network, timed, meets the target.

The sum of blocks in a table deviates from the latency of a whole network by a factor that hardly changes with its
widths. So the network is timed, and widths are fitted to the target divided by this factor, repeatedly. Operations and
depths stay. A network that seems to meet the target is certified once, by calls of its own: no repeated attempts that
could succeed by chance.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tfnas.bench.benches import Bench
from tfnas.bench.benchmark_cases import network_case
from tfnas.core.architecture import Architecture
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.reachable import Band
from tfnas.latency.widths import WidthCurves, at_widths, fit_channels, fit_widths
from tfnas.searching.refitting.certificate import Budget, Certificate, Length, StoppingRule, Verdict, sample_case

PRECISION = 1 / 3
"""Half-width of the interval to measure, as a fraction of epsilon."""

LEAST_SECONDS = 10.0
"""Minimum length of a certificate's pilot, if the time budget allows it."""

_LEAST_SECONDS, _LEAST_SHARE = 3.0, 1 / 10
"""Minimum length of a fit, and as a fraction of a small budget: shorter ones would mistake networks for fitting."""

_PILOT_SHARE = 1 / 12
_RESERVE = 1 / 5
"""Fraction of the time that is reserved for the certificate."""

_NOT_LAST_SHARE = 2 / 3
_NEAR = 1 / 2
"""A network, which has one certificate only, is certified if it seems to be within this fraction of epsilon."""

_FAR = 5.0
"""A network that misses the target by more epsilons than this is far from it."""

_NEIGHBOUR = 3.0
"""Networks within so many epsilons share their factor: their difference is below the noise."""

_MOST_REPEATS = 2

Purpose = Literal["fit", "certify"]


@dataclass(frozen=True)
class Phase:
    """What is timed next: the `number`-th of its purpose, for at most `most_seconds`."""

    purpose: Purpose
    number: int
    most_seconds: float


@dataclass(frozen=True)
class TimedNetwork:
    """A network that was timed: its latency in the table, and the certificate of its calls."""

    architecture: Architecture
    table_ms: float
    found: Certificate
    purpose: Purpose

    @property
    def factor(self) -> float:
        """Measured over predicted."""
        return self.found.median_ms / self.table_ms

    def to_json(self) -> dict[str, Any]:
        """Entry of the history in summary.json; the calls of a fit are only used for fitting, and have no interval."""
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
    """The target, its tolerance, and the limits: number of fits and seconds of measuring."""

    target_ms: float
    epsilon: float
    iterations: int
    seconds: float

    def error(self, found: Certificate) -> float:
        """The median's distance from the target, relative to it."""
        return abs(found.median_ms / self.target_ms - 1)

    @property
    def fit_rule(self) -> StoppingRule:
        """How long a fit is measured: until the interval is a tenth of the error."""
        wanted = PRECISION * self.epsilon
        least = min(_LEAST_SECONDS, _LEAST_SHARE * self.seconds)
        return StoppingRule(
            lambda found: found.half_width <= max(wanted, self.error(found) / 10),
            least,
            max(least, self.seconds / (4 * self.iterations)),
        )

    def length(self, left: float, *, is_last: bool, missing: float) -> Length:
        """How long a certificate is measured with `left` seconds left, some of which are reserved for another one.

        A network that is far off needs less precision: half of its `missing` relative error.
        """
        pilot = min(LEAST_SECONDS, _PILOT_SHARE * self.seconds)
        return Length(
            half_width=max(PRECISION * self.epsilon, missing / 2),
            pilot_seconds=min(pilot, left / 4),
            most_seconds=left if is_last else _NOT_LAST_SHARE * left,
        )


@dataclass(frozen=True)
class RefitResult:
    """Result of a refit: the network, its certificate, everything that was timed, and the reason for stopping.

    `bounds_ms` is the range that widths alone reach, by the table and the measured factor.
    """

    point: TimedNetwork
    verdict: Verdict
    history: tuple[TimedNetwork, ...]
    bounds_ms: tuple[float, float]
    ending: str

    @property
    def certificates(self) -> int:
        """How many were made, one for each network that seemed to meet the target."""
        return sum(point.purpose == "certify" for point in self.history)


@dataclass
class _Loop:
    table: LatencyTable
    bench: Bench
    goal: Goal
    on_phase: Callable[[Phase], None]
    on_timed: Callable[[TimedNetwork], None]
    budget: Budget
    points: list[TimedNetwork] = field(default_factory=list)

    def measure(self, architecture: Architecture, until: StoppingRule | Length) -> TimedNetwork:
        """Time a network; with a `Length`, for a certificate."""
        table_ms = self.table.architecture_ms(architecture)
        expected_ms = table_ms * (self.factor(table_ms) if self.points else 1.0)
        purpose: Purpose = "certify" if isinstance(until, Length) else "fit"
        before = sum(point.purpose == purpose for point in self.points)
        self.on_phase(Phase(purpose, before + 1, until.most_seconds))
        found = sample_case(self.bench, network_case(architecture), expected_ms, until, self.budget)
        point = TimedNetwork(architecture, table_ms, found, purpose)
        self.points.append(point)
        self.on_timed(point)
        return point

    def certify(self, architecture: Architecture, *, is_last: bool = False) -> TimedNetwork:
        """Time the only certificate of a network."""
        assert not self.has_certified(architecture)
        missing = self.missing(self.table.architecture_ms(architecture))
        is_far = missing > _FAR * self.goal.epsilon
        length = self.goal.length(self.budget.seconds, is_last=is_last, missing=missing if is_far else 0.0)
        return self.measure(architecture, length)

    def has_certified(self, architecture: Architecture) -> bool:
        """Whether a network has its certificate."""
        return any(point.purpose == "certify" and point.architecture == architecture for point in self.points)

    def factor(self, table_ms: float) -> float:
        """Measured over predicted near a table latency: mean of the networks there, weighted by measurement time.

        The mean prevents the loop from following the fast and slow phases of the machine.
        """
        reach = _NEIGHBOUR * self.goal.epsilon
        near = [point for point in self.points if abs(point.table_ms / table_ms - 1) <= reach] or self.points[-1:]
        weights = [point.found.seconds for point in near]
        return float(np.exp(np.average([np.log(point.factor) for point in near], weights=weights)))

    def missing(self, table_ms: float) -> float:
        """Estimated relative error of a network, by all that was measured near it."""
        return abs(self.factor(table_ms) * table_ms / self.goal.target_ms - 1)

    def exhausted(self) -> bool:
        """Whether the iterations or the time for fits are exhausted."""
        fits = sum(point.purpose == "fit" for point in self.points)
        return fits >= self.goal.iterations or self.budget.seconds <= _RESERVE * self.goal.seconds

    def result(self, ending: str) -> RefitResult:
        """The network that was certified last, or else the nearest one, certified now.

        Not the one with the best certificate, which would be a biased choice.
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
    on_timed: Callable[[TimedNetwork], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    on_phase: Callable[[Phase], None] = lambda _: None,
) -> RefitResult:
    """Fit and time, starting from a network, until one is certified within epsilon or no further progress is possible.

    `on_phase` is called before every timing, `on_timed` afterwards; `clock` returns seconds.

    Raises InputError when the table lacks a block.
    """
    loop = _Loop(table, bench, goal, on_phase, on_timed, Budget(goal.seconds, clock))
    architecture = start
    while True:
        point = loop.measure(architecture, goal.fit_rule)
        if loop.missing(point.table_ms) <= _NEAR * goal.epsilon:
            point = loop.certify(architecture)
            if point.found.verdict(goal.target_ms, goal.epsilon) == "inside":
                return loop.result("certified")
        if loop.exhausted():
            return loop.result("the iterations or the time budget are exhausted")
        aim_ms = goal.target_ms / loop.factor(point.table_ms)
        following = fitted_at(architecture, table, aim_ms, goal.epsilon)
        repeats = sum(found.architecture == following for found in loop.points if found.purpose == "fit")
        low, high = widths_range_ms(architecture, table)
        if repeats and not low < aim_ms < high:
            return loop.result("all widths are at their bounds")
        if repeats > _MOST_REPEATS or loop.has_certified(following):
            return loop.result("no other widths are closer to the target")
        architecture = following


def fitted_at(architecture: Architecture, table: LatencyTable, aim_ms: float, epsilon: float) -> Architecture:
    """Widths whose table latency is within a quarter of epsilon of the aim, or as close as possible.

    If the aim is beyond all widths, the cheapest or most expensive ones.
    """
    curves = WidthCurves.of(architecture, table)
    ends = [np.array([end(ms) for ms in curves.ms], dtype=np.int64) for end in (np.argmin, np.argmax)]
    cheapest, costliest = (at_widths(architecture, curves.lows + end * curves.steps) for end in ends)
    if aim_ms <= table.architecture_ms(cheapest):
        return cheapest
    if aim_ms >= table.architecture_ms(costliest):
        return costliest
    slack = epsilon / 4
    if abs(table.architecture_ms(architecture) / aim_ms - 1) <= slack:
        return architecture
    fitted = fit_widths(architecture, table, aim_ms)
    while True:  # ends: a wide enough band contains the cheapest or the costliest widths
        found = fit_channels(fitted, table, Band((1 - slack) * aim_ms, (1 + slack) * aim_ms))
        if found is not None:
            return found
        slack *= 2


def widths_range_ms(architecture: Architecture, table: LatencyTable) -> tuple[float, float]:
    """Lowest and highest table latency that widths alone reach."""
    curves = WidthCurves.of(architecture, table)
    low, high = (curves.base_ms + sum(float(end(ms)) for ms in curves.ms) for end in (np.min, np.max))
    return low, high
