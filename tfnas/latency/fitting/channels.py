"""Widths down to single steps: from the widths that the paper's procedure ends at into the band of a target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tfnas.architecture import Architecture
from tfnas.latency.fitting.band import Band
from tfnas.latency.fitting.fit import WidthCurves, at_widths, widths_of
from tfnas.latency.fitting.sums import SAME, StageItems, refined_sums
from tfnas.latency.table import LatencyTable

IntArray = NDArray[np.int64]


def fit_channels(fitted: Architecture, table: LatencyTable, band: Band) -> Architecture | None:
    """An architecture in the band that differs in widths only and little, or None when none is found.

    All blocks move in even proportion, one step of width at a time, towards their dearest (or cheapest) widths; where
    that passes over the band, the combinations of widths around the nearest point are searched, then others.
    """
    fitted_ms = table.architecture_ms(fitted)
    if band.holds(fitted_ms):
        return fitted
    curves = WidthCurves.of(fitted, table)
    path = _channel_path(curves, widths_of(fitted), dearer=fitted_ms < band.low_ms)
    path_ms = curves.total_ms(path)
    inside = band.where(path_ms)
    run = inside[inside - np.arange(len(inside)) == inside[:1]]  # the first stretch of the path within the band
    candidates = (at_widths(fitted, path[index]) for index in run[np.argsort(-path_ms[run], kind="stable")])
    nearest = path[np.maximum(path_ms - band.high_ms, band.low_ms - path_ms).argmin()]
    return band.first(candidates, table) or _search_around(fitted, nearest, curves, table, band)


def _channel_path(curves: WidthCurves, widths: IntArray, dearer: bool) -> IntArray:
    """Widths on the way to the dearest (or cheapest) ones [moves + 1, blocks]; all blocks arrive together."""
    ends = [int(ms.argmax() if dearer else ms.argmin()) for ms in curves.ms]
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
        sums = next(refined_sums([items], band.less(curves.base_ms)))
        inside = reversed(band.where(curves.base_ms + sums.ms, slack_ms=SAME * band.high_ms))
        candidates = (at_widths(fitted, lows + np.array(sums.trace(index)[1]) * curves.steps) for index in inside)
        found = band.first(candidates, table)
        if found is not None or radius >= farthest:
            return found
        radius *= 4
