"""Visiting workloads in interleaved rounds, again where something disturbed them, and what all visits say together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfnas.bench.measurement_journal import Journal
from tfnas.bench.timing import Timing, Visit, fair_timing, reference_timing
from tfnas.bench.workloads import Workload

_UNEVEN = 1.25
_SLOW = 1.5
_STRETCH = 50


@dataclass(eq=False)
class Visits:
    """All visits of a measurement so far, by the name of the workload.

    `on_visit` is called after each, for progress and for stopping.
    """

    journal: Journal
    calls: int
    seed: int
    on_visit: Callable[[], None]
    by_name: dict[str, list[Visit]] = field(default_factory=dict)
    in_order: list[Visit] = field(default_factory=list)
    repeated: int = 0
    _ratios: dict[str, tuple[int, Timing]] = field(default_factory=dict)

    def visit(self, workloads: Sequence[Workload], rounds: int) -> None:
        """Visit every workload once a round, each round in a new order; what was disturbed is visited once more.

        A visit counts as disturbed where the reference beside it was uneven, or far slower than usual.
        """
        shuffler = random.Random(f"{self.seed} {len(self.in_order)}")
        order: list[int] = []
        for _ in range(rounds):
            order += shuffler.sample(range(len(workloads)), len(workloads))
        visits = self._made(workloads, order)
        usual_ms = self.reference.median_ms
        disturbed = [place for place, visit in enumerate(visits) if _is_disturbed(visit, usual_ms)]
        shuffler.shuffle(disturbed)
        again = self._made(workloads, [order[place] for place in disturbed])
        self.repeated += len(again)
        for place, visit in zip(disturbed, again, strict=True):
            visits[place] = min(visits[place], visit, key=lambda made: (_is_slow(made, usual_ms), _unevenness(made)))
        for index, visit in zip(order, visits, strict=True):
            self.by_name.setdefault(workloads[index].name, []).append(visit)

    def _made(self, workloads: Sequence[Workload], order: Sequence[int]) -> list[Visit]:
        found = []
        for visit in self.journal.visits(workloads, order, self.calls):
            found.append(visit)
            self.in_order.append(visit)
            self.on_visit()
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

    def timing(self, workload: Workload, reference_ms: float) -> Timing:
        """Of one workload; `reference_ms` is `reference.median_ms`, asked for once."""
        visits = self.by_name[workload.name]
        known = self._ratios.get(workload.name)
        if known is None or known[0] < len(visits):
            known = self._ratios[workload.name] = len(visits), fair_timing(visits, 1.0)
        ratio = known[1]
        return Timing(ratio.median_ms * reference_ms, ratio.spread_ms * reference_ms, ratio.runs)


def _unevenness(visit: Visit) -> float:
    return max(visit.reference_ms) / min(visit.reference_ms)


def _is_disturbed(visit: Visit, usual_ms: float) -> bool:
    return _unevenness(visit) > _UNEVEN or _is_slow(visit, usual_ms)


def _is_slow(visit: Visit, usual_ms: float) -> bool:
    return float(np.median(visit.reference_ms)) > _SLOW * usual_ms
