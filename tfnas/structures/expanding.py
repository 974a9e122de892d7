"""Taking a structure apart into its units."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfnas.errors import InputError
from tfnas.structures.block import SuperBlock
from tfnas.structures.families import Family, Notation
from tfnas.structures.units import Bypass, Conv, SqueezeExcite, Unit

if TYPE_CHECKING:
    from tfnas.structures.structure import Structure


def expand(structure: Structure, resolution: int, frames: int, *, use_se: bool, floor: bool) -> tuple[Unit, ...]:
    """The units of a structure; what the arguments mean is said at `Structure.units`."""
    _check(structure, resolution, frames, use_se)
    units: list[Unit] = []
    stage, size = 0, resolution
    for number, block in enumerate(structure.blocks):
        stage += number > 0 and block.stride > 1
        family = structure.family(block)
        if block.quantized and not block.has_bits_of(family.num_convs(block.layers)):
            block = dataclasses.replace(block, weight_bits=(), activation_bits=())
        squeezes = family.squeeze_excite == "always" or (use_se and family.squeeze_excite == "if asked")
        made: dict[tuple[object, ...], tuple[tuple[Conv, ...], SqueezeExcite | None, Bypass | None]] = {}
        for position, channels in enumerate(_channels(block, family)):
            # Most units of a block are equal: made once, a deep network takes a fraction of a millisecond.
            key = (channels, size, position if position == 0 or block.quantized else None)
            if key not in made:
                convs = _convs(block, family, position, channels, size, frames, floor)
                squeeze = _squeeze_excite(structure.notation, family, convs) if squeezes else None
                made[key] = convs, squeeze, _bypass(family, position, convs)
            activation = block.activation or family.activation
            units.append(Unit(number, stage, position, block.family, activation, *made[key]))
            size = units[-1].resolution_out
    return tuple(units)


def round_to_8(value: float) -> int:
    """The multiple of 8 that is nearest, 8 at least; ties go to the even multiple, as the programs have it."""
    return max(8, 8 * round(value / 8))


def _check(structure: Structure, resolution: int, frames: int, use_se: bool) -> None:
    for name, value in (("resolution", resolution), ("frames", frames)):
        if value < 1:
            raise InputError(f"{name} must be 1 or more, got {value}")
    if use_se and structure.notation == "tinynas":
        raise InputError("use_se is for notation zennas; in tinynas the class of a block says whether it has it")
    if frames > 1 and not structure.is_video:
        raise InputError(f"this structure takes images, not videos of {frames} frames")


def _channels(block: SuperBlock, family: Family) -> Iterator[tuple[int, int, int]]:
    """Channels in, inside and out of every unit of a block."""
    current, inside = block.in_channels, block.bottleneck or block.out_channels
    for _ in range(block.layers if family.repeats else 1):
        for number in range(family.units_per_layer):
            if not family.expands_output:
                yield current, inside, block.out_channels
                current = block.out_channels
            else:
                out = block.out_channels if number == family.units_per_layer - 1 else inside
                yield current, round_to_8(out * (block.expansion or 1)), out
                current = out


def _convs(
    block: SuperBlock,
    family: Family,
    position: int,
    channels: tuple[int, int, int],
    size: int,
    frames: int,
    floor: bool,
) -> tuple[Conv, ...]:
    """The convolutions of a block's unit, which receives `size` pixels a side."""
    convs: list[Conv] = []
    last = len(family.layers) - 1
    for number, layer in enumerate(family.layers):
        inputs = channels[0] if number == 0 else channels[1]
        stride = block.stride if position == 0 and number == family.strided else 1
        bits = position * len(family.layers) + number
        conv = Conv(
            inputs,
            channels[2] if number == last else channels[1],
            1 if layer == "point" else block.kernel,
            stride,
            inputs if layer == "depthwise" else block.groups,
            size,
            size // stride if floor else -(-size // stride),
            1 if layer == "point" else block.temporal_kernel or 1,
            frames,
            weight_bits=block.weight_bits[bits] if block.weight_bits else None,
            activation_bits=block.activation_bits[bits] if block.activation_bits else None,
        )
        convs.append(conv)
        size = conv.resolution_out
    return tuple(convs)


def _squeeze_excite(notation: Notation, family: Family, convs: tuple[Conv, ...]) -> SqueezeExcite:
    assert family.squeeze_excite_after is not None
    channels = convs[family.squeeze_excite_after].out_channels
    if notation == "zennas":
        squeezed = max(1, round(channels * 0.25))
    else:
        squeezed = max(1, round(channels / 4) // 8) * 8
    return SqueezeExcite(family.squeeze_excite_after, channels, squeezed)


def _bypass(family: Family, position: int, convs: tuple[Conv, ...]) -> Bypass | None:
    first, last = convs[0], convs[-1]
    stride = convs[family.strided].stride
    changes = first.in_channels != last.out_channels
    if family.shortcut == "none" or (family.shortcut == "identity" and changes):
        return None
    strided = family.shortcut == "strided"
    projects = (family.projects_first and position == 0) or changes or (strided and stride > 1)
    projection = Conv(
        first.in_channels,
        last.out_channels,
        1,
        stride if strided else 1,
        1,
        first.resolution_in if strided else last.resolution_out,
        last.resolution_out,
        frames=first.frames,
        bias=strided,
        weight_bits=first.weight_bits,  # a quantised unit's shortcut has those of its first convolution
        activation_bits=first.activation_bits,
    )
    return Bypass(not strided and stride > 1, projection if projects else None)
