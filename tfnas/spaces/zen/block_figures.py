"""True figures of one super-block in plain arithmetic: an evolutionary search needs those of hundreds of thousands.

They equal what the units of a structure add up to (`Structure.units`, `core.units`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from tfnas.spaces.zen.block_units import KNOWN_UNITS, BlockUnit, UnitKey, block_unit, unit_keys
from tfnas.spaces.zen.structure import squeezed_channels
from tfnas.spaces.zen.super_block import BLOCK_TYPES, Notation, SuperBlock


class BlockFigures(NamedTuple):
    """Figures of a super-block for one image or video.

    `convs` counts the convolutions of the main path, `log_width` adds up the logarithms of their fan-ins.
    `peak_activations` is the largest number of activations that are live at once (`core.units.peak_activations`).
    """

    params: int
    macs: int
    units: int
    convs: int
    log_width: float
    peak_activations: int
    size_out: int


def block_figures(
    block: SuperBlock,
    notation: Notation,
    size: int,
    *,
    frames: int = 1,
    use_se: bool = False,
    groups_share_fan_in: bool = True,
) -> BlockFigures:
    """The figures of a block that receives `size` x `size` pixels; sizes are rounded up at a stride.

    Without `groups_share_fan_in` only depthwise convolutions have fan-ins of a group: how the TinyNAS program counts.
    """
    block_type = BLOCK_TYPES[notation, block.block_type]
    squeezes = block_type.squeezes(use_se)
    size_out = -(-size // block.stride)
    positions_in, positions_out = frames * size**2, frames * size_out**2
    params = macs = count = peak = 0
    log_width = 0.0
    for key, times in unit_keys(block, notation):
        unit_params, macs_in, macs_out, macs_once, unit_log_width, steps = _unit_figures(key, squeezes)
        params += times * unit_params
        macs += times * (macs_in * positions_in + macs_out * positions_out + macs_once)
        count += times
        log_width += times * unit_log_width
        if block.groups > 1 and not groups_share_fan_in:
            log_width += times * _grouped(block_unit(key), block.groups) * math.log(block.groups)
        for before, after, once in steps:
            live = before * positions_in + after * positions_out + once
            if live > peak:
                peak = live
        positions_in = positions_out
    return BlockFigures(params, macs, count, count * len(block_type.layers), log_width, peak, size_out)


class _UnitFigures(NamedTuple):
    """Figures of a unit that hold at any size.

    MACs are for each pixel of its input, for each of its output, and once for an image. `live` says in the same way how
    many activations are live in each step that may be the largest.
    """

    params: int
    macs_in: int
    macs_out: int
    macs_once: int
    log_width: float
    live: tuple[tuple[int, int, int], ...]


@lru_cache(KNOWN_UNITS)
def _unit_figures(key: UnitKey, squeezes: bool) -> _UnitFigures:
    """Step by step as the module computes it."""
    unit = block_unit(key)
    strided, squeeze_after = unit.block_type.strided, unit.block_type.squeeze_excite_after if squeezes else None
    params = macs_in = macs_out = macs_once = 0
    kept, before, after = 0, unit.in_channels, 0  # channels kept for the shortcut; of a map before and after the stride
    live = []
    for number, (channels, fan_in) in enumerate(unit.convs):
        weights = channels * fan_in
        params += weights + 2 * channels
        if number < strided:
            macs_in += weights
            live.append((kept + before + channels, after, 0))
            before = channels
        else:
            macs_out += weights
            live.append((kept + before, after + channels, 0))
            before, after = 0, channels
        kept = unit.in_channels if unit.shortcut else 0
        if number == squeeze_after:
            squeezed = squeezed_channels(key[0], channels)
            params += 2 * (channels * squeezed + channels + squeezed)
            macs_once += 2 * channels * squeezed
            live.append((kept + before, after, channels + squeezed))
    pooled = unit.in_channels if unit.pools else 0
    if pooled:
        live.append((kept, after + pooled, 0))
        kept = 0
    if unit.projects:
        bias = unit.out_channels if unit.block_type.shortcut == "strided" else 0
        weights = unit.in_channels * unit.out_channels + bias
        params += weights + 2 * unit.out_channels
        macs_out += weights
        live.append((kept, pooled + after + unit.out_channels, 0))
    if unit.stride == 1 and squeeze_after is None:  # as many pixels before as after
        live = [(0, max([sum(step) for step in live]), 0)]
    return _UnitFigures(params, macs_in, macs_out, macs_once, unit.log_width, tuple(live))


def _grouped(unit: BlockUnit, groups: int) -> int:
    """How many of a unit's convolutions are split into so many groups and are not depthwise."""
    channels = [unit.in_channels, *(outputs for outputs, _ in unit.convs)]
    return sum(
        layer != "depthwise" and not channels[number] == channels[number + 1] == groups
        for number, layer in enumerate(unit.block_type.layers)
    )
