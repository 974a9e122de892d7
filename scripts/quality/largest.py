"""The network with the most multiply-accumulates of all that take one latency, exactly: what size alone would choose.

A knapsack: milliseconds in small bins, each block's rounded up, so that a sum never exceeds the target.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quality.networks import Wanted
from tfnas.core.architecture import Architecture
from tfnas.core.errors import Infeasible
from tfnas.core.space import BlockPlace
from tfnas.latency.meet_target import check_target
from tfnas.latency.reachable import Band
from tfnas.spaces.mbconv.mbconv_family import block_counts

FloatArray = NDArray[np.float64]

_BINS = 4000


class _Item(NamedTuple):
    """An operation at a width, in a block: what it costs in bins, and its MACs."""

    bins: int
    macs: int
    operation: int
    width: int


class _Sums(NamedTuple):
    """The most MACs at every sum of bins, and the items of the blocks so far that give them (None: no such sum)."""

    macs: FloatArray
    items: list[tuple[_Item, ...] | None]


def largest_by_macs(wanted: Wanted) -> Architecture:
    """Raises Infeasible where no network's rounded latency is in the band below the target."""
    check_target(wanted.space, wanted.table, wanted.target_ms, wanted.num_classes)
    space, base_ms = wanted.space, wanted.table.base_ms(wanted.num_classes)
    sums = {(): _Sums(np.array([0.0, *[-np.inf] * _BINS]), [(), *[None] * _BINS])}
    for first, choices in zip(space.first_blocks, space.depth_choices, strict=True):
        reached = {}
        for depths, before in sums.items():
            now = before
            for depth in range(max(choices) + 1):
                if depth in choices:
                    reached[(*depths, depth)] = now
                if depth < max(choices):
                    now = _with(now, _items(wanted, space.blocks[first + depth], base_ms))
        sums = reached
    found = [
        (macs, depths, items)
        for depths, (all_macs, all_items) in sums.items()
        for macs, items in zip(all_macs, all_items, strict=True)
        if items is not None
    ]
    band = Band.of(wanted.target_ms)
    candidates = (_network(wanted, depths, items) for _, depths, items in sorted(found, key=lambda one: -one[0]))
    architecture = band.first(candidates, wanted.table)
    if architecture is None:
        raise Infeasible(f"no network takes {wanted.target_ms:g} ms")
    return architecture


def _items(wanted: Wanted, place: BlockPlace, base_ms: float) -> list[_Item]:
    """Of every cost the item with the most MACs."""
    space, bin_ms = wanted.space, (wanted.target_ms - base_ms) / _BINS
    best: dict[int, _Item] = {}
    for index, operation in enumerate(space.operations):
        blocks = [space.block(place, operation, width) for width in space.widths(place, operation)]
        for block, ms in zip(blocks, wanted.table.widths_ms(blocks[0], place.input_size), strict=True):
            bins = int(np.ceil(ms / bin_ms))
            item = _Item(bins, block_counts(block, place.input_size).macs, index, block.mid_channels)
            if bins <= _BINS and (bins not in best or item.macs > best[bins].macs):
                best[bins] = item
    return list(best.values())


def _with(before: _Sums, items: list[_Item]) -> _Sums:
    """The sums with one block more."""
    macs, taken = np.full(_BINS + 1, -np.inf), np.full(_BINS + 1, -1)
    for number, item in enumerate(items):
        candidate = before.macs[: _BINS + 1 - item.bins] + item.macs
        better = candidate > macs[item.bins :]
        macs[item.bins :][better] = candidate[better]
        taken[item.bins :][better] = number
    kept: list[tuple[_Item, ...] | None] = [None] * (_BINS + 1)
    for place in np.flatnonzero(taken >= 0):
        item = items[taken[place]]
        rest = before.items[place - item.bins]
        assert rest is not None
        kept[place] = (*rest, item)
    return _Sums(macs, kept)


def _network(wanted: Wanted, depths: tuple[int, ...], items: tuple[_Item, ...]) -> Architecture:
    """Blocks that are left out get the first operation at its first width, which nobody looks at."""
    space, left = wanted.space, iter(items)
    chosen = []
    for place in space.blocks:
        if place.position < depths[place.stage]:
            item = next(left)
            chosen.append((item.operation, item.width))
        else:
            chosen.append((0, space.widths(place, space.operations[0])[0]))
    operations, widths = zip(*chosen, strict=True)
    return space.architecture(operations, depths, widths, wanted.num_classes)
