"""Elasticity scaling of width: move widths in proportional units towards a latency (TF-NAS, section 3.3).

`fit_widths` is the paper's procedure, and may miss: where widths meet their bounds the last unit is large.
`fit_channels` moves single steps of width, from where that ends into the band of a target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.cost import MILLISECONDS, Cost
from tfnas.core.errors import InputError
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.reachable import SUM_ROUNDING, Band, StageItems, reachable_latencies

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class WidthCurves:
    """What the blocks of one architecture cost at every width they may take.

    `stages`, `lows`, `highs` and `steps` [blocks] are the stage (from 0), the width bounds and the step between widths
    of each block; `ms` holds per block the milliseconds at the widths low, low + step, ..., high.
    """

    base_ms: float
    stages: IntArray
    lows: IntArray
    highs: IntArray
    steps: IntArray
    ms: tuple[FloatArray, ...]

    @classmethod
    def of(cls, architecture: Architecture, table: LatencyTable) -> WidthCurves:
        """Look the curves of an architecture's blocks up in a table."""
        places = architecture.blocks
        ranges = np.array([place.block.mid_range for place in places], dtype=np.int64).reshape(-1, 2)
        return cls(
            base_ms=table.base_ms(architecture.num_classes),
            stages=np.array([place.stage for place in places], dtype=np.int64),
            lows=ranges[:, 0],
            highs=ranges[:, 1],
            steps=np.array([place.block.mid_step for place in places], dtype=np.int64),
            ms=tuple(table.widths_ms(place.block, place.input_size) for place in places),
        )

    def total_ms(self, widths: IntArray) -> FloatArray:
        """Milliseconds of each row of widths [rows, blocks], added up in the order of the table's own sum."""
        total = np.zeros(len(widths))
        for index, curve in enumerate(self.ms):
            total += curve[(widths[:, index] - self.lows[index]) // self.steps[index]]
        return self.base_ms + total


def check_target_ms(target_ms: float, cost: Cost = MILLISECONDS) -> None:
    """Raise InputError unless the target is a positive, finite number of milliseconds (or what the cost counts)."""
    if not (math.isfinite(target_ms) and target_ms > 0):
        words = "target latency" if cost.is_time else "target"
        raise InputError(f"the {words} must be a positive number of {cost.target_words}, got {target_ms}")


def block_widths(architecture: Architecture) -> IntArray:
    """The widths of an architecture's blocks, in order [blocks]."""
    return np.array([place.block.mid_channels for place in architecture.blocks], dtype=np.int64)


def at_widths(architecture: Architecture, widths: IntArray) -> Architecture:
    """The architecture with the width of every block replaced (widths [blocks], in order)."""
    pairs = zip(architecture.blocks, widths, strict=True)
    return architecture.with_widths({(place.stage, place.position): int(width) for place, width in pairs})


def fit_widths(architecture: Architecture, table: LatencyTable, target_ms: float) -> Architecture:
    """Scale the widths of an architecture towards a latency, by the paper's procedure exactly; it may miss.

    Above the target, units of channels are removed in all stages, then added back in ever fewer, later stages; below
    it, they are added in ever fewer stages. Raises InputError when `target_ms` is not positive or not finite, or when
    the table lacks a block.
    """
    check_target_ms(target_ms, table.cost)
    curves, widths = WidthCurves.of(architecture, table), block_widths(architecture)
    now_ms = curves.total_ms(widths[None])[0]
    if now_ms == target_ms:
        return architecture
    first_added = 0
    if now_ms > target_ms:
        widths, first_added = _remove_units(curves, widths, target_ms), 1
    for first_stage in range(first_added, len(architecture.stages)):
        widths = _add_units(curves, widths, first_stage, target_ms)
    return at_widths(architecture, widths)


def _remove_units(curves: WidthCurves, widths: IntArray, target_ms: float) -> IntArray:
    """Take units away in all stages until the latency is below the target or every width is at its bound."""
    path = _unit_path(curves, widths, 0, -1)
    below = np.flatnonzero(curves.total_ms(path) < target_ms)
    fitted: IntArray = path[below[0]] if below.size else path[-1]
    return fitted


def _add_units(curves: WidthCurves, widths: IntArray, first_stage: int, target_ms: float) -> IntArray:
    """Add units from a stage on while the latency is not above the target; the state before the last unit tried."""
    path = _unit_path(curves, widths, first_stage, 1)
    above = np.flatnonzero(curves.total_ms(path) > target_ms)
    last = above[0] if above.size else len(path) - 1
    fitted: IntArray = path[max(last - 1, 0)]
    return fitted


def _unit_path(curves: WidthCurves, widths: IntArray, first_stage: int, sign: int) -> IntArray:
    """Widths after 0, 1, 2, ... units [units + 1, blocks], up to the unit that brings the last width to its bound.

    A unit moves each block by its width over the smallest width, rounded half to even, times its step.
    """
    moved = curves.stages >= first_stage
    if not moved.any():
        return widths[None]
    ratios = np.maximum(np.rint(widths / widths[moved].min()), 1).astype(np.int64) * curves.steps
    room = curves.highs - widths if sign > 0 else widths - curves.lows
    units = max(1, int((-(-room // ratios))[moved].max()))  # one is tried even when every width is at its bound
    moves = sign * np.arange(units + 1)[:, None] * np.where(moved, ratios, 0)
    path: IntArray = np.clip(widths + moves, curves.lows, curves.highs)
    return path


def fit_channels(fitted: Architecture, table: LatencyTable, band: Band) -> Architecture | None:
    """An architecture in the band that differs in widths only and little, or None when none is found.

    All blocks move in even proportion, one step of width at a time, towards their most expensive (or cheapest) widths;
    where that passes over the band, the combinations of widths around the nearest point are searched, then others.
    """
    fitted_ms = table.architecture_ms(fitted)
    if band.holds(fitted_ms):
        return fitted
    curves = WidthCurves.of(fitted, table)
    path = _channel_path(curves, block_widths(fitted), raising=fitted_ms < band.low_ms)
    path_ms = curves.total_ms(path)
    inside = band.where(path_ms)
    run = inside[inside - np.arange(len(inside)) == inside[:1]]  # the first stretch of the path within the band
    candidates = (at_widths(fitted, path[index]) for index in run[np.argsort(-path_ms[run], kind="stable")])
    nearest = path[np.maximum(path_ms - band.high_ms, band.low_ms - path_ms).argmin()]
    return band.first(candidates, table) or _search_around(fitted, nearest, curves, table, band)


def _channel_path(curves: WidthCurves, widths: IntArray, raising: bool) -> IntArray:
    """Widths on the way to the most expensive (or cheapest) ones [moves + 1, blocks]; all blocks arrive together."""
    ends = [int(ms.argmax() if raising else ms.argmin()) for ms in curves.ms]
    moves = np.array(ends, dtype=np.int64) - (widths - curves.lows) // curves.steps
    times = np.concatenate([(np.arange(abs(move)) + 0.5) / abs(move) for move in moves if move] or [np.zeros(0)])
    movers = np.repeat(np.arange(len(moves)), np.abs(moves))[np.argsort(times, kind="stable")]
    steps = np.zeros((len(movers) + 1, len(moves)), dtype=np.int64)
    steps[np.arange(len(movers)) + 1, movers] = np.sign(moves)[movers]
    taken: IntArray = steps.cumsum(axis=0)
    path: IntArray = widths + taken * curves.steps
    return path


def _search_around(
    fitted: Architecture, widths: IntArray, curves: WidthCurves, table: LatencyTable, band: Band
) -> Architecture | None:
    """Any combination of widths in the band, looked for in growing neighbourhoods of the given ones."""
    nearest, last = (widths - curves.lows) // curves.steps, (curves.highs - curves.lows) // curves.steps
    radius, farthest = 1, int(last.max(initial=0))
    while True:
        starts, ends = np.maximum(nearest - radius, 0), np.minimum(nearest + radius, last)
        lows = curves.lows + starts * curves.steps
        spans = zip(curves.ms, starts, ends + 1, strict=True)
        items = StageItems((len(widths),), tuple(ms[start:stop] for ms, start, stop in spans))
        sums = next(reachable_latencies([items], band.less(curves.base_ms)))
        inside = reversed(band.where(curves.base_ms + sums.ms, slack_ms=SUM_ROUNDING * band.high_ms))
        candidates = (at_widths(fitted, lows + np.array(sums.trace(index)[1]) * curves.steps) for index in inside)
        found = band.first(candidates, table)
        if found is not None or radius >= farthest:
            return found
        radius *= 4
