"""What the original programs count of one super-block (`structure_counts.py` says what is particular about it).

ZenNAS rounds sizes down at a stride; TinyNAS takes them as real numbers. Bits of a TinyNAS structure weigh its counts.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

from tfnas.core.errors import InputError
from tfnas.spaces.zen.block_units import KNOWN_UNITS, UnitKey, block_unit, every_unit, unit_keys
from tfnas.spaces.zen.structure import squeezed_channels
from tfnas.spaces.zen.super_block import BLOCK_TYPES, Notation, SuperBlock

_Bits = tuple[tuple[int, int], ...]
"""Of every convolution of a unit the bits of weights and of inputs; none where they are not written down."""


class ProgramCounts(NamedTuple):
    """Parameters and MACs of a block as its program counts them, and the side of its output in pixels."""

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


def program_layers(block: SuperBlock, notation: Notation) -> int:
    """What the program's limit on depth counts: ZenNAS the layers of super-blocks, TinyNAS convolutions."""
    if notation == "zennas":
        return block.layers
    convs, repeats = _layer_convs(block.block_type)
    return convs * block.layers if repeats else convs


@cache
def _layer_convs(block_type: str) -> tuple[int, bool]:
    """Of a block type of TinyNAS the convolutions of a layer, and whether layers repeat."""
    kind = BLOCK_TYPES["tinynas", block_type]
    return kind.num_convs(1), kind.repeats


# ---- ZenNAS ---------------------------------------------------------------------------------------------------------


def _zennas(block: SuperBlock, size: int, use_se: bool, residuals: bool) -> ProgramCounts:
    params = macs = 0.0
    size_out = size // block.stride
    for key, times in unit_keys(block, "zennas"):
        unit_params, unit_macs = _zennas_unit(key, size, use_se, residuals)
        params += times * unit_params
        macs += times * unit_macs
        size = size_out
    return ProgramCounts(params, macs, size_out)


@lru_cache(KNOWN_UNITS)
def _zennas_unit(key: UnitKey, size: int, use_se: bool, residuals: bool) -> tuple[float, float]:
    unit = block_unit(key)
    params = macs = 0.0
    for number, (channels, fan_in) in enumerate(unit.convs):
        stride = unit.stride if number == unit.block_type.strided else 1
        made = size // stride
        params += channels * fan_in + channels
        macs += channels * fan_in * size**2 // stride**2 + channels * made**2
        if use_se and number == unit.block_type.squeeze_excite_after:
            squeezed = squeezed_channels("zennas", channels)
            params += 2 * (channels * squeezed + channels + squeezed)
            macs += 2 * channels * squeezed + channels + channels * made**2
        size = made
    if residuals and unit.projects:
        weights = unit.in_channels * unit.out_channels + unit.out_channels
        params += weights
        macs += weights * (size / unit.stride) ** 2
    return params, macs


# ---- TinyNAS --------------------------------------------------------------------------------------------------------


def conv_bits(block: SuperBlock) -> _Bits:
    """Bits of weights and inputs of every convolution; none where a file does not say them for each."""
    convs = BLOCK_TYPES["tinynas", block.block_type].num_convs(block.layers)
    return tuple(zip(block.weight_bits, block.activation_bits, strict=True)) if block.has_bits_for(convs) else ()


def _tinynas(block: SuperBlock, size: float, frames: int, residuals: bool) -> ProgramCounts:
    bits = conv_bits(block)
    keys = [(key, 1) for key in every_unit(block, "tinynas")] if bits else unit_keys(block, "tinynas")
    per_unit = len(BLOCK_TYPES["tinynas", block.block_type].layers)
    params = macs = 0.0
    area = float(size) ** 2
    for number, (key, times) in enumerate(keys):
        unit_bits = bits[number * per_unit : (number + 1) * per_unit]
        unit_params, unit_macs = _tinynas_unit(key, unit_bits, residuals)
        params += times * unit_params
        macs += times * unit_macs * area
        if number == 0:
            area /= block.stride**2
    return ProgramCounts(params, macs * frames, size / block.stride)


@lru_cache(KNOWN_UNITS)
def _tinynas_unit(key: UnitKey, bits: _Bits, residuals: bool) -> tuple[float, float]:
    """Parameters of a unit, and MACs of one that receives a single pixel."""
    unit = block_unit(key)
    params, macs, area = 0.0, 0.0, 1.0
    convs = [(channels, channels * fan_in) for channels, fan_in in unit.convs]
    all_bits = bits or ((8, 8),) * len(convs)
    if residuals and unit.projects:  # of a quantised unit it has the bits of the first convolution
        convs.append((unit.out_channels, unit.in_channels * unit.out_channels))
        all_bits = (*all_bits, all_bits[0])
    for number, ((channels, weights), (weight_bits, input_bits)) in enumerate(zip(convs, all_bits, strict=True)):
        area /= unit.stride**2 if number == unit.block_type.strided else 1
        params += weights * weight_bits / 8 + 2 * channels
        macs += (weights * weight_bits * input_bits / 64 + 3 * channels) * area  # with batch norm and activation
        if unit.block_type.squeeze_excite == "always" and number == unit.block_type.squeeze_excite_after:
            squeezed = squeezed_channels("tinynas", channels)
            params += 2 * (channels * squeezed + channels + squeezed)
    return params, macs + unit.in_channels * (residuals and unit.pools)


@lru_cache(KNOWN_UNITS)
def program_feature_bytes(block: SuperBlock, size: int, bits_behind: int) -> float:
    """TinyNAS's `max_feature` of a block: bytes that a convolution reads and writes, of its largest.

    A depthwise convolution writes one channel beside its input, over which the next is written. While it runs, the sum
    of a unit with a shortcut is kept too. `bits_behind` are those of the next block's input. Raises InputError unless
    the block is a quantised plain or depthwise one of notation tinynas.
    """
    bits = [pair[1] for pair in conv_bits(block)] if block.block_type in ("conv", "k1dwk1") else []
    if not bits or block.groups > 1:
        raise InputError(
            "max_feature is what the TinyNAS program counts of quantised depthwise structures; this one has a block of "
            f"type {block.block_type} {'in groups' if block.groups > 1 else 'without bits'}: use max_memory"
        )
    bits.append(bits_behind)
    largest, conv = 0.0, 0
    for key in every_unit(block, "tinynas"):
        unit = block_unit(key)
        inputs = unit.in_channels
        kept = size**2 * unit.out_channels // unit.stride**2 * bits[conv] / 8 if unit.shortcut else 0.0
        for number, (outputs, _) in enumerate(unit.convs):
            stride = unit.stride if number == unit.block_type.strided else 1
            depthwise = unit.block_type.layers[number] == "depthwise"
            written = size**2 * (1 if depthwise else outputs) // stride**2
            found = (size**2 * inputs * bits[conv] + written * bits[conv + 1]) / 8
            largest = max(largest, found + (kept if depthwise else 0.0))
            inputs, size, conv = outputs, size // stride, conv + 1
    return largest
