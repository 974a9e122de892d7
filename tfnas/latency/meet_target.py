"""Meeting a target latency: 0.995 * target <= table latency <= target, or a statement of what is reachable instead.

First the best operations and depths whose range of latency meets the band, with the paper's width fitting; then single
steps of width. Where that fails, a search over everything decides whether the space holds an architecture in the band
at all; if so, the next best operations and depths are tried before settling for what that search found. Latency is not
assumed to grow with width.

Which operations and depths are best is a multiple-choice knapsack with two-sided budget: one depth per stage, one
operation per used block, the lowest latency of the choice at most the band's end and its highest at least the band's
start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.core.cost import Cost
from tfnas.core.errors import Infeasible, UnmetTarget
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.reachable import SUM_ROUNDING, Band, StageItems, reachable_latencies
from tfnas.latency.widths import check_target_ms, fit_channels, fit_widths

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


@dataclass(frozen=True)
class SpaceBounds:
    """What a space can reach with a table, in the table's unit, and what every network of it has."""

    cost: Cost
    lowest_ms: float
    highest_ms: float
    base_ms: float
    mandatory_blocks: int
    blocks: int

    @classmethod
    def of(cls, space: SearchSpace, table: LatencyTable, num_classes: int | None = None) -> SpaceBounds:
        """Look them up. Raises InputError when the table lacks a block of the space."""
        lowest_ms, highest_ms = table.range_ms(space, num_classes)
        mandatory_blocks = sum(min(depths) for depths in space.depth_choices)
        return cls(table.cost, lowest_ms, highest_ms, table.base_ms(num_classes), mandatory_blocks, len(space.blocks))

    @property
    def description(self) -> str:
        """One line for people."""
        number, quantity, base_ms = self.cost.number, self.cost.quantity, self.base_ms
        return (
            f"{number(self.lowest_ms)} to {quantity(self.highest_ms)}; stem and head alone take {quantity(base_ms)}, "
            f"the {self.mandatory_blocks} mandatory blocks at least {quantity(self.lowest_ms - base_ms)}, and all "
            f"{self.blocks} blocks at most {quantity(self.highest_ms - base_ms)}"
        )


class TargetOutOfRange(Infeasible):
    """A target below or above everything that the space reaches, with what it takes to explain the range.

    `space_argument` is what the user calls the space, where that is known.
    """

    unmet: UnmetTarget
    space: SearchSpace
    table: LatencyTable
    num_classes: int | None
    space_argument: str | None


def check_target(
    space: SearchSpace,
    table: LatencyTable,
    target_ms: float,
    num_classes: int | None = None,
    named: str | None = None,
) -> None:
    """Raise TargetOutOfRange when the target lies beyond what the space reaches with its table.

    `named` is what the user calls the space, for an explanation. A target just above the highest latency passes while
    the highest is in its band. Raises InputError when the target is not positive or not finite, or when the table lacks
    a block of the space.
    """
    check_target_ms(target_ms, table.cost)
    bounds = SpaceBounds.of(space, table, num_classes)
    if Band.of(target_ms).overlaps(bounds.lowest_ms, bounds.highest_ms):
        return
    side = "below" if target_ms < bounds.lowest_ms else "above"
    error = TargetOutOfRange(
        f"the target of {table.quantity(target_ms, 6)} is {side} what the space {space.name!r} reaches with its table "
        f"({bounds.description}); choose a target within that range, or change the space",
        UnmetTarget(
            target=target_ms,
            unit=table.unit,
            space=space.name,
            table=table.source,
            lowest=bounds.lowest_ms,
            highest=bounds.highest_ms,
        ),
    )
    error.space, error.table, error.num_classes, error.space_argument = space, table, num_classes, named
    raise error


def meet_target(choice: Choice, table: LatencyTable, target_ms: float) -> Architecture:
    """The most preferred architecture with 0.995 * target_ms <= table latency <= target_ms. Deterministic.

    Operations and depths maximise `choice.score` among those whose widths can meet the target; widths start from
    `fit_widths` and then move by single steps. Raises Infeasible when no architecture of the space is in the band,
    naming the nearest reachable latency on each side, and otherwise as `check_target` does.
    """
    check_target(choice.space, table, target_ms, choice.num_classes)
    base_ms = table.base_ms(choice.num_classes)
    band = Band.of(target_ms)
    curves = _curves(choice.space, table)
    lowest_ms = np.array([[curve.min() for curve in row] for row in curves])
    highest_ms = np.array([[curve.max() for curve in row] for row in curves])
    selections = best_selections(choice, lowest_ms, highest_ms, band.less(base_ms))
    attempts = (
        fit_channels(fit_widths(choice.architecture(*selection), table, target_ms), table, band)
        for selection in selections
    )
    first = next(attempts, None)
    if first is not None:
        return first
    anything = _search_everything(choice, curves, table, band)  # a coarse space: is there any before trying many?
    return next((found for found in attempts if found is not None), anything)


def _curves(space: SearchSpace, table: LatencyTable) -> list[list[FloatArray]]:
    """Milliseconds per block and operation at every width in range."""
    return [
        [table.widths_ms(block, place.input_size) for block in blocks]
        for place, blocks in zip(space.blocks, space.initial_blocks, strict=True)
    ]


def _search_everything(
    choice: Choice, curves: Sequence[Sequence[FloatArray]], table: LatencyTable, band: Band
) -> Architecture:
    """Any architecture of the space in the band. Raises Infeasible when there is none."""
    space, base_ms = choice.space, table.base_ms(choice.num_classes)
    items = [np.concatenate(row) for row in curves]
    stages = [
        StageItems(depths, tuple(items[first : first + stage.blocks]))
        for stage, first, depths in zip(space.stages, space.first_blocks, space.depth_choices, strict=True)
    ]
    for sums in reachable_latencies(stages, band.less(base_ms)):
        inside = reversed(band.where(base_ms + sums.ms, slack_ms=SUM_ROUNDING * band.high_ms))
        found = band.first((_architecture(choice, curves, *sums.trace(index)) for index in inside), table)
        if found is not None:
            return found
    lowest_ms, highest_ms = below, above = table.range_ms(space, choice.num_classes)
    step_ms = max(float(ms.max()) for ms in items)  # from any latency to the next reachable one, at most
    window = Band(max(below, band.low_ms - step_ms), min(above, band.high_ms + step_ms))
    for sums in reachable_latencies(stages, window.less(base_ms), band.width_ms):
        total_ms = base_ms + sums.ms
        below = float(total_ms[total_ms < band.low_ms].max(initial=below))
        above = float(total_ms[total_ms > band.high_ms].min(initial=above))
    raise _nothing_in_band(
        space,
        band,
        table.cost,
        UnmetTarget(
            target=band.high_ms,
            unit=table.unit,
            space=space.name,
            table=table.source,
            lowest=lowest_ms,
            highest=highest_ms,
            nearest_below=below,
            nearest_above=above,
        ),
    )


def _nothing_in_band(space: SearchSpace, band: Band, cost: Cost, unmet: UnmetTarget) -> Infeasible:
    """The error of a target inside the range that no architecture meets."""
    what = "table latency" if cost.is_time else f"number of {cost.unit}"
    words = "nearest reachable latencies" if cost.is_time else f"nearest reachable numbers of {cost.unit}"
    near = [end for end in (unmet.nearest_below, unmet.nearest_above) if end is not None]
    ends = " and ".join(f"{cost.as_target(end)} {cost.unit}" for end in near)
    if space.has_expansion:
        finer = "" if space.width_multiple == 1 else f", lower its width_multiple of {space.width_multiple},"
        remedy = f"{finer} or widen the width_bounds of the space"
    else:
        remedy = ", or give the space an operation that expands: only these have widths to fit"
    return Infeasible(
        f"no architecture of the space {space.name!r} has a {what} of {cost.number(band.low_ms, 6)} to "
        f"{cost.quantity(band.high_ms, 6)}: the {words} are {ends}; choose one of them as the target{remedy}",
        unmet,
    )


def _architecture(
    choice: Choice, curves: Sequence[Sequence[FloatArray]], depths: Sequence[int], items: Sequence[int]
) -> Architecture:
    """The architecture of item numbers, one per block: places in the curves of its operations put end to end."""
    operations, widths = [], []
    for place, row, item in zip(choice.space.blocks, curves, items, strict=True):
        starts = np.cumsum([0, *(len(curve) for curve in row)])
        operation = int(np.searchsorted(starts, item, side="right")) - 1
        operations.append(operation)
        widths.append(choice.space.widths(place, choice.space.operations[operation])[item - int(starts[operation])])
    return choice.space.architecture(operations, depths, widths, choice.num_classes)
