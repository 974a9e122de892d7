"""The units of one super-block without sizes, each kind once: what the figures of blocks are computed from.

Units of a block from its second layer on repeat, and in a search most units are known from other blocks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from tfnas.spaces.zen.structure import unit_channels
from tfnas.spaces.zen.super_block import BLOCK_TYPES, BlockType, Notation, SuperBlock

KNOWN_UNITS = 1 << 14
"""Units that are remembered: some 10 MB for each function of them."""

UnitKey = tuple[Notation, str, int, int, tuple[int, int, int], int, bool]
"""All that a unit depends on but sizes: notation, block type, the area of its kernel (times the frames that it spans),
groups, its channels in, inside and out, stride, and whether it is the first of its block."""


class BlockUnit(NamedTuple):
    """A unit of a block.

    `convs` has the output channels and the fan-in of every convolution of the main path; the fan-in is the number of
    weights of one output channel, too. `log_width` adds up the logarithms of fan-ins. The last three say whether there
    is a shortcut, whether it begins with a pool, and whether it has a convolution.
    """

    block_type: BlockType
    in_channels: int
    out_channels: int
    stride: int
    convs: tuple[tuple[int, int], ...]
    log_width: float
    shortcut: bool
    pools: bool
    projects: bool


def unit_keys(block: SuperBlock, notation: Notation) -> list[tuple[UnitKey, int]]:
    """The kinds of units of a block and how many there are of each; that of the first unit stands first."""
    name = block.block_type
    block_type = BLOCK_TYPES[notation, name]
    area, groups = block.kernel**2 * (block.temporal_kernel or 1), block.groups
    layers = block.layers if block_type.repeats else 1
    if not block_type.expands_output:  # all but the first unit are equal
        out, count = block.out_channels, layers * block_type.units_per_layer
        inside = block.bottleneck or out
        first_key: UnitKey = (notation, name, area, groups, (block.in_channels, inside, out), block.stride, True)
        return [(first_key, 1), ((notation, name, area, groups, (out, inside, out), 1, False), count - 1)][:count]
    first, *others = unit_channels(block, block_type, min(layers, 2))
    keys: list[tuple[UnitKey, int]] = [((notation, name, area, groups, first, block.stride, True), 1)]
    times: dict[tuple[int, int, int], int] = {}  # all but the first unit are told apart by their channels alone
    for position, channels in enumerate(others, 1):
        times[channels] = times.get(channels, 0) + (1 if position < block_type.units_per_layer else layers - 1)
    for channels, count in times.items():
        keys.append(((notation, name, area, groups, channels, 1, False), count))
    return keys


def every_unit(block: SuperBlock, notation: Notation) -> list[UnitKey]:
    """All units of a block in order."""
    block_type = BLOCK_TYPES[notation, block.block_type]
    area = block.kernel**2 * (block.temporal_kernel or 1)
    return [
        (notation, block.block_type, area, block.groups, channels, 1 if position else block.stride, not position)
        for position, channels in enumerate(unit_channels(block, block_type, block.layers))
    ]


@lru_cache(KNOWN_UNITS)
def block_unit(key: UnitKey) -> BlockUnit:
    """The unit of a key."""
    notation, name, area, groups, (inputs, inside, outputs), stride, first = key
    block_type = BLOCK_TYPES[notation, name]
    source, convs = inputs, []
    for number, layer in enumerate(block_type.layers, 1):
        fan_in = area if layer == "depthwise" else source // groups * (1 if layer == "point" else area)
        convs.append((outputs if number == len(block_type.layers) else inside, fan_in))
        source = inside
    changes, kind = inputs != outputs, block_type.shortcut
    shortcut = kind != "none" and not (kind == "identity" and changes)
    projects = changes or (first and block_type.projects_first) or (stride > 1 and kind == "strided")
    log_width = math.log(math.prod([fan_in for _, fan_in in convs]))
    pools = stride > 1 and kind != "strided"
    return BlockUnit(
        block_type,
        inputs,
        outputs,
        stride,
        tuple(convs),
        log_width,
        shortcut,
        shortcut and pools,
        shortcut and projects,
    )
