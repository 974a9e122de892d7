"""Figures of one super-block in plain arithmetic: an evolutionary search needs those of hundreds of thousands.

`block_figures` equals what the units of a structure add up to; `program_counts` is how the original programs count
(`structure_counts.py` says what is particular about it). Units of a block from its second layer on repeat, so that each
kind is computed once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tfnas.core.errors import InputError
from tfnas.spaces.zen.structure import squeezed_channels, unit_channels
from tfnas.spaces.zen.super_block import BLOCK_TYPES, BlockType, Notation, SuperBlock


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


_Convs = list[tuple[int, int]]
"""Of every convolution of a unit's main path the output channels and the fan-in, the weights of one output channel."""


class _Unit(NamedTuple):
    """Equal units of a block: how many there are, and the position of the first one.

    `log_width` adds up the logarithms of fan-ins; the last three say whether there is a shortcut, whether it begins
    with a pool, and whether it has a convolution.
    """

    times: int
    position: int
    in_channels: int
    out_channels: int
    stride: int
    convs: _Convs
    log_width: float
    shortcut: bool
    pools: bool
    projects: bool


def _units(block: SuperBlock, block_type: BlockType, *, merged: bool = True) -> list[_Unit]:
    """The kinds of units, that of the first unit first; or, not `merged`, every unit by itself."""
    layers = block.layers if block_type.repeats else 1
    first, *others = unit_channels(block, block_type, min(layers, 2) if merged else layers)
    units = [_unit(block, block_type, first, 0, 1)]
    if not merged:
        return units + [_unit(block, block_type, channels, position, 1) for position, channels in enumerate(others, 1)]
    times: dict[tuple[int, int, int], int] = {}  # all but the first unit are told apart by their channels alone
    for position, channels in enumerate(others, 1):
        repeats = 1 if position < block_type.units_per_layer else layers - 1
        times[channels] = times.get(channels, 0) + repeats
    return units + [_unit(block, block_type, channels, 1, count) for channels, count in times.items()]


def _unit(block: SuperBlock, block_type: BlockType, channels: tuple[int, int, int], position: int, times: int) -> _Unit:
    source, inside, outputs = inputs, _, _ = channels
    area = block.kernel**2 * (block.temporal_kernel or 1)
    stride = block.stride if position == 0 else 1
    convs, width = [], 1
    for layer in block_type.layers:
        fan_in = area if layer == "depthwise" else source // block.groups * (1 if layer == "point" else area)
        convs.append((inside, fan_in))
        width *= fan_in
        source = inside
    convs[-1] = outputs, fan_in
    changes, kind = inputs != outputs, block_type.shortcut
    if kind == "none" or (kind == "identity" and changes):
        shortcut = pools = projects = False
    else:
        shortcut, pools = True, stride > 1 and kind != "strided"
        projects = changes or (position == 0 and block_type.projects_first) or (stride > 1 and kind == "strided")
    return _Unit(times, position, inputs, outputs, stride, convs, math.log(width), shortcut, pools, projects)


def block_figures(
    block: SuperBlock,
    notation: Notation,
    size: int,
    *,
    frames: int = 1,
    use_se: bool = False,
    fan_in_of_groups: bool = True,
) -> BlockFigures:
    """The figures of a block that receives `size` x `size` pixels; sizes are rounded up at a stride.

    Without `fan_in_of_groups` fan-ins are as if only depthwise convolutions had groups: how the TinyNAS program counts.
    """
    block_type = BLOCK_TYPES[notation, block.block_type]
    squeezes = block_type.squeeze_excite == "always" or (use_se and block_type.squeeze_excite == "if asked")
    squeeze_after = block_type.squeeze_excite_after if squeezes else None
    size_out = -(-size // block.stride)
    positions_in, positions_out = frames * size**2, frames * size_out**2
    params = macs = count = peak = 0
    log_width = 0.0
    for unit in _units(block, block_type):
        unit_params, unit_macs, unit_peak = _unit_figures(
            unit, block_type, notation, squeeze_after, positions_in, positions_out
        )
        params += unit.times * unit_params
        macs += unit.times * unit_macs
        count += unit.times
        log_width += unit.times * unit.log_width
        if block.groups > 1 and not fan_in_of_groups:
            log_width += unit.times * _grouped(unit, block, block_type) * math.log(block.groups)
        if unit_peak > peak:
            peak = unit_peak
        positions_in = positions_out
    return BlockFigures(params, macs, count, count * len(block_type.layers), log_width, peak, size_out)


def _grouped(unit: _Unit, block: SuperBlock, block_type: BlockType) -> int:
    """How many of a unit's convolutions are split into the block's groups and are not depthwise."""
    channels = [unit.in_channels, *(outputs for outputs, _ in unit.convs)]
    return sum(
        layer != "depthwise" and not channels[number] == channels[number + 1] == block.groups
        for number, layer in enumerate(block_type.layers)
    )


def _unit_figures(
    unit: _Unit,
    block_type: BlockType,
    notation: Notation,
    squeeze_after: int | None,
    positions_in: int,
    positions_out: int,
) -> tuple[int, int, int]:
    """Parameters, MACs and the most activations at once of one unit, step by step as the module computes it."""
    given = unit.in_channels * positions_in
    waiting, feature = 0, given  # what the shortcut keeps beside the input of the next convolution
    params = macs = peak = 0
    for number, (channels, fan_in) in enumerate(unit.convs):
        positions = positions_in if number < block_type.strided else positions_out
        weights, output = channels * fan_in, channels * positions
        params += weights + 2 * channels
        macs += weights * positions
        if waiting + feature + output > peak:
            peak = waiting + feature + output
        waiting, feature = given if unit.shortcut else 0, output
        if number == squeeze_after:
            squeezed = squeezed_channels(notation, channels)
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
    return params, macs, peak


# ---- as the original programs count ---------------------------------------------------------------------------------


class ProgramCounts(NamedTuple):
    """Parameters and MACs of a block as its program counts them, and the side of its output in pixels.

    ZenNAS takes whole pixels, rounded down; TinyNAS real numbers.
    """

    params: float
    macs: float
    size_out: float


def program_counts(
    block: SuperBlock,
    notation: Notation,
    size: float,
    *,
    frames: int = 1,
    use_se: bool = False,
    residuals: bool = True,
) -> ProgramCounts:
    """What the program of a notation counts of a block that receives `size` x `size` pixels."""
    if notation == "zennas":
        return _zennas(block, int(size), use_se, residuals)
    return _tinynas(block, size, frames, residuals)


def _zennas(block: SuperBlock, size: int, use_se: bool, residuals: bool) -> ProgramCounts:
    block_type = BLOCK_TYPES["zennas", block.block_type]
    squeeze_after = block_type.squeeze_excite_after if use_se else None
    params = macs = 0.0
    size_out = size // block.stride
    for unit in _units(block, block_type):
        unit_params = unit_macs = 0.0
        for number, (channels, fan_in) in enumerate(unit.convs):
            stride = unit.stride if number == block_type.strided else 1
            received = size if number <= block_type.strided else size_out
            made = received // stride
            unit_params += channels * fan_in + channels
            unit_macs += channels * fan_in * received**2 // stride**2 + channels * made**2
            if number == squeeze_after:
                squeezed = squeezed_channels("zennas", channels)
                unit_params += 2 * (channels * squeezed + channels + squeezed)
                unit_macs += 2 * channels * squeezed + channels + channels * made**2
        if residuals and unit.projects:
            weights = unit.in_channels * unit.out_channels + unit.out_channels
            unit_params += weights
            unit_macs += weights * (size_out / unit.stride) ** 2
        params += unit.times * unit_params
        macs += unit.times * unit_macs
        size = size_out
    return ProgramCounts(params, macs, size_out)


def _tinynas(block: SuperBlock, size: float, frames: int, residuals: bool) -> ProgramCounts:
    block_type = BLOCK_TYPES["tinynas", block.block_type]
    weight_bits, activation_bits = conv_bits(block, block_type)
    params = macs = 0.0
    area = float(size) ** 2
    for unit in _units(block, block_type, merged=not weight_bits):
        first = unit.position * len(unit.convs)
        unit_params, unit_macs, share = 0.0, 0.0, 1.0  # MACs of a unit that receives one pixel
        for number, (channels, fan_in) in enumerate(unit.convs, first):
            share /= unit.stride**2 if number - first == block_type.strided else 1
            weights = channels * fan_in
            bits = (weight_bits[number], activation_bits[number]) if weight_bits else (8, 8)
            unit_params += weights * bits[0] / 8 + 2 * channels
            unit_macs += (weights * bits[0] * bits[1] / 64 + 3 * channels) * share  # with batch norm and activation
            if block_type.squeeze_excite == "always" and number - first == block_type.squeeze_excite_after:
                squeezed = squeezed_channels("tinynas", channels)
                unit_params += 2 * (channels * squeezed + channels + squeezed)
        if residuals and unit.shortcut:
            unit_macs += unit.in_channels * unit.pools
        if residuals and unit.projects:
            weights, channels = unit.in_channels * unit.out_channels, unit.out_channels
            bits = (weight_bits[first], activation_bits[first]) if weight_bits else (8, 8)
            unit_params += weights * bits[0] / 8 + 2 * channels
            unit_macs += (weights * bits[0] * bits[1] / 64 + 3 * channels) * share
        params += unit.times * unit_params
        macs += unit.times * unit_macs * area
        area /= unit.stride**2
    return ProgramCounts(params, macs * frames, size / block.stride)


def conv_bits(block: SuperBlock, block_type: BlockType) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bits of every convolution's weights and inputs; none where a file does not say them for each."""
    if not block.has_bits_for(block_type.num_convs(block.layers)):
        return (), ()
    return block.weight_bits, block.activation_bits


def program_layers(block: SuperBlock, notation: Notation) -> int:
    """What the program's limit on depth counts: ZenNAS the layers of super-blocks, TinyNAS convolutions."""
    return block.layers if notation == "zennas" else BLOCK_TYPES[notation, block.block_type].num_convs(block.layers)


def program_feature_bytes(block: SuperBlock, size: int, bits_behind: int) -> float:
    """TinyNAS's `max_feature` of a block: bytes that a convolution reads and writes, of its largest.

    A depthwise convolution writes one channel beside its input, over which the next is written. While it runs, the sum
    of a unit with a shortcut is kept too. `bits_behind` are those of the next block's input. Raises InputError unless
    the block is a quantised plain or depthwise one of notation tinynas.
    """
    block_type = BLOCK_TYPES.get(("tinynas", block.block_type))
    activation_bits = () if block_type is None else conv_bits(block, block_type)[1]
    if block_type is None or block.block_type not in ("conv", "k1dwk1") or not activation_bits or block.groups > 1:
        raise InputError(
            "max_feature is what the TinyNAS program counts of quantised depthwise structures; this one has a block of "
            f"type {block.block_type} {'in groups' if block.groups > 1 else 'without bits'}: use max_memory"
        )
    bits = (*activation_bits, bits_behind)
    largest = 0.0
    for unit in _units(block, block_type, merged=False):
        first, inputs = unit.position * len(unit.convs), unit.in_channels
        kept = size**2 * unit.out_channels // unit.stride**2 * bits[first] / 8 if unit.shortcut else 0.0
        for number, (outputs, _) in enumerate(unit.convs):
            stride = unit.stride if number == block_type.strided else 1
            depthwise = block_type.layers[number] == "depthwise"
            written = size**2 * (1 if depthwise else outputs) // stride**2
            found = (size**2 * inputs * bits[first + number] + written * bits[first + number + 1]) / 8
            largest = max(largest, found + (kept if depthwise else 0.0))
            inputs, size = outputs, size // stride
    return largest
