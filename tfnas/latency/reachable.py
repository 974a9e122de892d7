"""The band of latencies that meet a target, and the latencies that a space can reach: a subset-sum dynamic programme.

The programme adds one item per block and one depth per stage. Layer by layer it stores real sums, at most one per cell
of a grid: a dropped sum has a stored one within a cell of it, so the result is off by at most one cell per block, and
exact when none was dropped. Every stored sum can be traced back to the items that make it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.cost import FLOOR
from tfnas.latency.cost_table import LatencyTable


class Band(NamedTuple):
    """Latencies from `low_ms` to `high_ms`, both ends included."""

    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, target_ms: float) -> Band:
        """The band of a target."""
        return cls(FLOOR * target_ms, target_ms)

    @property
    def width_ms(self) -> float:
        """The difference of its ends."""
        return self.high_ms - self.low_ms

    def less(self, ms: float) -> Band:
        """The band that is left when a part of the latency is spoken for."""
        return Band(self.low_ms - ms, self.high_ms - ms)

    def holds(self, ms: float) -> bool:
        """Whether a latency meets the target."""
        return self.low_ms <= ms <= self.high_ms

    def overlaps(self, lowest_ms: float, highest_ms: float) -> bool:
        """Whether the target lies in a range; one just above the highest does, while the highest is in the band."""
        return lowest_ms <= self.high_ms and self.low_ms <= highest_ms

    def where(self, ms: NDArray[np.float64], slack_ms: float = 0.0) -> NDArray[np.int64]:
        """The indices of the latencies [n] that are in the band or at most `slack_ms` outside."""
        return np.flatnonzero((ms >= self.low_ms - slack_ms) & (ms <= self.high_ms + slack_ms))

    def first(self, candidates: Iterable[Architecture], table: LatencyTable) -> Architecture | None:
        """The first architecture whose table latency, as the table adds it up, is in the band."""
        return next((found for found in candidates if self.holds(table.architecture_ms(found))), None)


FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SUM_ROUNDING = 1e-12
"""Relative difference up to which two sums differ by the order of addition only."""

_CELLS_PER_BAND = 4
_FINER = 8
_LARGEST_LAYER = 2**20


class StageItems(NamedTuple):
    """A stage: the depths it may have, and per block the milliseconds it may take."""

    depths: tuple[int, ...]
    blocks: tuple[FloatArray, ...]


class _Layer(NamedTuple):
    """Sums in rising order; each came from entry `parent` of the layer before by adding `item`.

    At the end of a stage the layer before is that of block number `item`, the depth.
    """

    ms: FloatArray
    parent: IntArray
    item: IntArray


@dataclass(frozen=True)
class ReachableLatencies:
    """The reachable sums `ms` in rising order; `exact` says that none was dropped.

    `largest_layer` is how many sums the largest step went through.
    """

    stages: tuple[tuple[_Layer, ...], ...]
    ends: tuple[_Layer, ...]
    exact: bool
    largest_layer: int

    @property
    def ms(self) -> FloatArray:
        """All stored sums, in milliseconds."""
        return self.ends[-1].ms

    def trace(self, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The depth of each stage and the item of each block (0 where dropped) that make the sum `ms[index]`."""
        depths: list[int] = []
        items: list[int] = []
        for layers, end in zip(reversed(self.stages), reversed(self.ends), strict=True):
            depth, index = int(end.item[index]), int(end.parent[index])
            depths.append(depth)
            items.extend([0] * (len(layers) - 1 - depth))
            for layer in reversed(layers[1 : depth + 1]):
                items.append(int(layer.item[index]))
                index = int(layer.parent[index])
        return tuple(reversed(depths)), tuple(reversed(items))


def reachable_latencies(
    stages: Sequence[StageItems], window: Band, resolution_ms: float | None = None
) -> Iterator[ReachableLatencies]:
    """The sums within a window (those outside may be left out), on ever finer grids; the last is exact if feasible.

    The first grid has a few cells per `resolution_ms`, by default the width of the window. Ends early where a finer
    grid would hold too many sums to go through.
    """
    cell_ms = (window.width_ms if resolution_ms is None else resolution_ms) / _CELLS_PER_BAND
    yield (sums := _sums(stages, window, cell_ms))
    while not sums.exact and sums.largest_layer * _FINER**2 <= _LARGEST_LAYER:
        cell_ms /= _FINER
        yield (sums := _sums(stages, window, cell_ms))


def _sums(stages: Sequence[StageItems], window: Band, cell_ms: float) -> ReachableLatencies:
    """The sums on one grid."""
    same_ms = SUM_ROUNDING * window.high_ms
    trimmer = _Trimmer(cell_ms, same_ms)
    window = Band(window.low_ms - same_ms, window.high_ms + same_ms)
    end = _Layer(np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int64))
    all_layers, ends, largest = [], [], 0
    for stage, (depths, blocks) in enumerate(stages):
        layers = [end]
        for done, block_ms in enumerate(blocks, 1):
            rest = [StageItems(tuple(depth - done for depth in depths if depth >= done), blocks[done:])]
            added = _added(layers[-1], trimmer.trim(_items(block_ms)))
            largest = max(largest, len(added.ms))
            layers.append(trimmer.trim(_leading_to(window, added, [*rest, *stages[stage + 1 :]])))
        end = trimmer.trim(_joined(layers, depths))
        all_layers.append(tuple(layers))
        ends.append(end)
    return ReachableLatencies(tuple(all_layers), tuple(ends), trimmer.exact, largest)


class _Trimmer:
    """Stores one sum per cell, the lowest, and notes whether that dropped any that differed."""

    def __init__(self, cell_ms: float, same_ms: float) -> None:
        self._cell_ms, self._same_ms = cell_ms, same_ms
        self.exact = True

    def trim(self, layer: _Layer) -> _Layer:
        order = np.argsort(layer.ms, kind="stable")
        ms = layer.ms[order]
        cells = np.floor(ms / self._cell_ms)
        first = np.concatenate([[True], cells[1:] != cells[:-1]])[: len(ms)]
        stored_ms = ms[first][np.cumsum(first) - 1]
        self.exact = self.exact and not bool((ms - stored_ms > self._same_ms).any())
        stored = order[first]
        return _Layer(layer.ms[stored], layer.parent[stored], layer.item[stored])


def _items(ms: FloatArray) -> _Layer:
    """The items of one block."""
    return _Layer(ms, np.zeros(len(ms), np.int64), np.arange(len(ms)))


def _added(sums: _Layer, items: _Layer) -> _Layer:
    """Every sum with every item added."""
    ms = sums.ms[:, None] + items.ms[None, :]
    parent = np.broadcast_to(np.arange(len(sums.ms))[:, None], ms.shape)
    return _Layer(ms.ravel(), parent.ravel(), np.broadcast_to(items.item, ms.shape).ravel())


def _leading_to(window: Band, layer: _Layer, rest: Sequence[StageItems]) -> _Layer:
    """The sums from which the window can be reached with what is left to add."""
    low, high = _extremes(rest)
    inside = Band(window.low_ms - high, window.high_ms - low).where(layer.ms)
    return _Layer(layer.ms[inside], layer.parent[inside], layer.item[inside])


def _joined(layers: Sequence[_Layer], depths: Sequence[int]) -> _Layer:
    """The sums at the end of a stage: those after each number of blocks that it may have."""
    return _Layer(
        np.concatenate([layers[depth].ms for depth in depths]),
        np.concatenate([np.arange(len(layers[depth].ms)) for depth in depths]),
        np.concatenate([np.full(len(layers[depth].ms), depth) for depth in depths]),
    )


def _extremes(stages: Sequence[StageItems]) -> tuple[float, float]:
    """Lowest and highest sum of whole stages."""
    low = high = 0.0
    for depths, blocks in stages:
        lows = list(accumulate((float(ms.min()) for ms in blocks), initial=0.0))
        highs = list(accumulate((float(ms.max()) for ms in blocks), initial=0.0))
        low += min(lows[depth] for depth in depths)
        high += max(highs[depth] for depth in depths)
    return low, high
