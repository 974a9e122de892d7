"""Which operations and depths to take, best first, among those whose widths could meet a latency.

A multiple-choice knapsack with two-sided budget: one depth per stage, one operation per kept block, the lowest latency
of the choice at most the band's end and its highest at least the band's start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfnas.core.choice import Choice
from tfnas.latency.reachable import SUM_ROUNDING, Band

FloatArray = NDArray[np.float64]

_MOST_SELECTIONS = 20


class Selection(NamedTuple):
    """An operation index for every block (of no meaning where the block is dropped) and a depth for every stage."""

    operations: tuple[int, ...]
    depths: tuple[int, ...]


def best_selections(choice: Choice, lowest_ms: FloatArray, highest_ms: FloatArray, band: Band) -> Iterator[Selection]:
    """Selections whose range of latency meets the band, by falling `choice.score`; each once, at most 20.

    `lowest_ms`, `highest_ms` [blocks, operations]: over the widths. The band is without the table's base.
    The derived selection scores 0, so it comes first wherever it is possible at all.
    """
    knapsack = _Knapsack(choice, lowest_ms, highest_ms, band)
    derived, most = Selection(choice.best_operations, choice.best_depths), _MOST_SELECTIONS
    if knapsack.admits(derived):
        yield derived
        knapsack.exclude(derived)
        most -= 1
    for _ in range(most):
        selection = knapsack.solve()
        if selection is None:
            return
        if knapsack.admits(selection):  # the solver lets a budget be overrun by 5e-7
            yield selection
        knapsack.exclude(selection)


class _Knapsack:
    """The integer programme. Variables: one indicator per (block, operation), then one per (stage, depth)."""

    def __init__(self, choice: Choice, lowest_ms: FloatArray, highest_ms: FloatArray, band: Band) -> None:
        self._space, self._band = choice.space, band
        self._grid = (len(choice.space.blocks), len(choice.space.operations))
        self._score = np.concatenate([choice.operation_scores.ravel(), *choice.depth_scores])
        depths = sum(len(values) for values in choice.depth_scores)
        self._lowest_ms = np.concatenate([lowest_ms.ravel(), np.zeros(depths)])
        self._highest_ms = np.concatenate([highest_ms.ravel(), np.zeros(depths)])
        rows, sums = self._structure()
        unit_ms = _power_of_two(highest_ms.max())  # millions of MACs are far from 1, where the solver's tolerances are
        self._rows = [*rows, self._lowest_ms / unit_ms, self._highest_ms / unit_ms]
        self._lows = [*sums, -np.inf, band.low_ms / unit_ms]
        self._highs = [*sums, band.high_ms / unit_ms, np.inf]

    def _structure(self) -> tuple[list[FloatArray], list[float]]:
        """Equations: one depth per stage; in a block one operation when the depth keeps it, none otherwise."""
        rows: list[FloatArray] = []
        sums: list[float] = []
        for stage in range(len(self._space.stages)):
            row = np.zeros(len(self._score))
            row[[self._depth_at(stage, depth) for depth in self._space.depth_choices[stage]]] = 1
            rows.append(row)
            sums.append(1)
        for block, place in enumerate(self._space.blocks):
            row = np.zeros(len(self._score))
            row[block * self._grid[1] : (block + 1) * self._grid[1]] = 1
            keeping = [depth for depth in self._space.depth_choices[place.stage] if depth > place.position]
            row[[self._depth_at(place.stage, depth) for depth in keeping]] = -1
            rows.append(row)
            sums.append(0)
        return rows, sums

    def _depth_at(self, stage: int, depth: int) -> int:
        before = sum(len(choices) for choices in self._space.depth_choices[:stage])
        return self._grid[0] * self._grid[1] + before + self._space.depth_choices[stage].index(depth)

    def _indicators(self, selection: Selection) -> FloatArray:
        """The variables of a selection."""
        chosen = np.zeros(len(self._score))
        for block, place in enumerate(self._space.blocks):
            if place.position < selection.depths[place.stage]:
                chosen[block * self._grid[1] + selection.operations[block]] = 1
        chosen[[self._depth_at(stage, depth) for stage, depth in enumerate(selection.depths)]] = 1
        return chosen

    def admits(self, selection: Selection) -> bool:
        """Whether the range of latency of a selection meets the band, up to the order of addition."""
        chosen, same_ms = self._indicators(selection), SUM_ROUNDING * self._band.high_ms
        lowest, highest = float(self._lowest_ms @ chosen), float(self._highest_ms @ chosen)
        return lowest <= self._band.high_ms + same_ms and highest >= self._band.low_ms - same_ms

    def exclude(self, selection: Selection) -> None:
        """Cut one selection off: not all of its indicators may be 1 again."""
        chosen = self._indicators(selection)
        self._rows.append(chosen)
        self._lows.append(-np.inf)
        self._highs.append(float(chosen.sum()) - 1)

    def solve(self) -> Selection | None:
        """The best selection left, or None."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # takes half a second, and is seldom needed

        with _nothing_printed():
            result = milp(
                -self._score,
                integrality=np.ones(len(self._score)),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(np.array(self._rows), self._lows, self._highs),
                options={"mip_rel_gap": 0.0, "presolve": False},  # exact; these problems are small
            )
        if result.x is None:
            return None
        cells = self._grid[0] * self._grid[1]
        operations = result.x[:cells].reshape(self._grid).argmax(axis=1)
        depths, start = [], cells
        for choices in self._space.depth_choices:
            depths.append(choices[int(result.x[start : start + len(choices)].argmax())])
            start += len(choices)
        return Selection(tuple(int(index) for index in operations), tuple(depths))


def _power_of_two(number: float) -> float:
    """The largest at most as large: dividing by it rounds nothing."""
    return float(2.0 ** np.floor(np.log2(number)))


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """HiGHS now and then writes a line of its own to standard output, past Python and whatever its options say."""
    try:
        output = os.dup(1)
    except OSError:  # closed: nobody reads it
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(output, 1)
        os.close(output)
