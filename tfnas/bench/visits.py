"""Visiting cases in interleaved rounds, again where something disturbed them, and what all visits say together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.measurement_journal import Journal
from tfnas.bench.timing import Timing, TimingSample, normalised_timing, reference_timing

_UNEVEN = 1.25
_SLOW = 1.5
_STRETCH = 50


@dataclass(eq=False)
class Visits:
    """All visits of a measurement so far, by the name of the case.

    `on_measurement` is called after each, for progress and for stopping.
    """

    journal: Journal
    calls: int
    seed: int
    on_measurement: Callable[[], None]
    by_name: dict[str, list[TimingSample]] = field(default_factory=dict)
    in_order: list[TimingSample] = field(default_factory=list)
    repeated: int = 0
    _ratios: dict[str, tuple[int, Timing]] = field(default_factory=dict)

    def visit(self, cases: Sequence[BenchmarkCase], rounds: int) -> None:
        """Measure every case once a round, each round in a new order; what was disturbed is measured once more.

        A visit counts as disturbed where the reference beside it was uneven, or far slower than usual.
        """
        shuffler = random.Random(f"{self.seed} {len(self.in_order)}")
        order: list[int] = []
        for _ in range(rounds):
            order += shuffler.sample(range(len(cases)), len(cases))
        visits = self._made(cases, order)
        usual_ms = self.reference.median_ms
        disturbed = [place for place, visit in enumerate(visits) if _is_disturbed(visit, usual_ms)]
        shuffler.shuffle(disturbed)
        again = self._made(cases, [order[place] for place in disturbed])
        self.repeated += len(again)
        for place, visit in zip(disturbed, again, strict=True):
            visits[place] = min(visits[place], visit, key=lambda made: (_is_slow(made, usual_ms), _unevenness(made)))
        for index, visit in zip(order, visits, strict=True):
            self.by_name.setdefault(cases[index].name, []).append(visit)

    def _made(self, cases: Sequence[BenchmarkCase], order: Sequence[int]) -> list[TimingSample]:
        found = []
        for visit in self.journal.measure(cases, order, self.calls):
            found.append(visit)
            self.in_order.append(visit)
            self.on_measurement()
        return found

    @property
    def reference(self) -> Timing:
        """Of the reference, over everything."""
        return reference_timing(self.in_order)

    @property
    def drift(self) -> tuple[float, float]:
        """The fastest and the slowest stretch of visits, as multiples of the reference's median."""
        starts = range(0, max(1, len(self.in_order) - _STRETCH + 1), _STRETCH)
        stretches = [self.in_order[start : start + _STRETCH] for start in starts]
        medians = [reference_timing(stretch).median_ms for stretch in stretches]
        usual_ms = self.reference.median_ms
        return min(medians) / usual_ms, max(medians) / usual_ms

    def timing(self, case: BenchmarkCase, reference_ms: float) -> Timing:
        """Of one case; `reference_ms` is `reference.median_ms`, asked for once."""
        visits = self.by_name[case.name]
        known = self._ratios.get(case.name)
        if known is None or known[0] < len(visits):
            known = self._ratios[case.name] = len(visits), normalised_timing(visits, 1.0)
        ratio = known[1]
        return Timing(ratio.median_ms * reference_ms, ratio.spread_ms * reference_ms, ratio.runs)


def _unevenness(visit: TimingSample) -> float:
    return max(visit.reference_ms) / min(visit.reference_ms)


def _is_disturbed(visit: TimingSample, usual_ms: float) -> bool:
    return _unevenness(visit) > _UNEVEN or _is_slow(visit, usual_ms)


def _is_slow(visit: TimingSample, usual_ms: float) -> bool:
    return float(np.median(visit.reference_ms)) > _SLOW * usual_ms
