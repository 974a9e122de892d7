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
    squeezes = block_type.squeeze_excite == "always" or (use_se and block_type.squeeze_excite == "if asked")
    size_out = -(-size // block.stride)
    positions_in, positions_out = frames * size**2, frames * size_out**2
    params = macs = count = peak = 0
    log_width = 0.0
    for key, times in unit_keys(block, notation):
        unit_params, unit_macs, unit_peak, unit_width = _unit_figures(key, squeezes, positions_in, positions_out)
        params += times * unit_params
        macs += times * unit_macs
        count += times
        log_width += times * unit_width
        if block.groups > 1 and not groups_share_fan_in:
            log_width += times * _grouped(block_unit(key), block.groups) * math.log(block.groups)
        if unit_peak > peak:
            peak = unit_peak
        positions_in = positions_out
    return BlockFigures(params, macs, count, count * len(block_type.layers), log_width, peak, size_out)


@lru_cache(KNOWN_UNITS)
def _unit_figures(key: UnitKey, squeezes: bool, positions_in: int, positions_out: int) -> tuple[int, int, int, float]:
    """Parameters, MACs, most activations at once and log width of one unit, step by step as the module computes it."""
    unit = block_unit(key)
    block_type = unit.block_type
    given = unit.in_channels * positions_in
    waiting, feature = 0, given  # what the shortcut keeps beside the input of the next convolution
    params = macs = peak = 0
    for number, (channels, fan_in) in enumerate(unit.convs):
        positions = positions_in if number < block_type.strided else positions_out
        weights, output = channels * fan_in, channels * positions
        params += weights + 2 * channels
        macs += weights * positions
        peak = max(peak, waiting + feature + output)
        waiting, feature = given if unit.shortcut else 0, output
        if squeezes and number == block_type.squeeze_excite_after:
            squeezed = squeezed_channels(key[0], channels)
            params += 2 * (channels * squeezed + channels + squeezed)
            macs += 2 * channels * squeezed
            peak = max(peak, waiting + feature + channels + squeezed)
    if unit.pools:
        pooled = unit.in_channels * positions_out
        peak = max(peak, given + feature + pooled)
        given = pooled
    if unit.projects:
        bias = unit.out_channels if block_type.shortcut == "strided" else 0
        weights = unit.in_channels * unit.out_channels + bias
        params += weights + 2 * unit.out_channels
        macs += weights * positions_out
        peak = max(peak, given + feature + unit.out_channels * positions_out)
    return params, macs, peak, unit.log_width


def _grouped(unit: BlockUnit, groups: int) -> int:
    """How many of a unit's convolutions are split into so many groups and are not depthwise."""
    channels = [unit.in_channels, *(outputs for outputs, _ in unit.convs)]
    return sum(
        layer != "depthwise" and not channels[number] == channels[number + 1] == groups
        for number, layer in enumerate(unit.block_type.layers)
    )
