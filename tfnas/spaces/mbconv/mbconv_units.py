"""The convolutions of an architecture of MBConv blocks, with sizes, and what its blocks count."""

from __future__ import annotations

from tfnas.core.architecture import Architecture
from tfnas.core.blocks import Block, Conv, output_size
from tfnas.core.counts import Counts, unit_counts
from tfnas.core.units import PLAIN, ConvShape, Shortcut, SqueezeExciteShape, Unit

BLOCK_TYPE = "mbconv"


def architecture_units(architecture: Architecture) -> tuple[Unit, ...]:
    """Stems, blocks, feature mix. A stage of the architecture is a block of units; the stems and the mix are plain."""
    units = [_conv_unit(architecture.first_stem, 0, 0, architecture.image_size)]
    size, second = units[-1].resolution_out, architecture.second_stem
    stage = int(second.stride > 1)
    units.append(block_unit(second, size, (1, stage, 0), PLAIN))
    for place in architecture.blocks:
        stage += place.block.stride > 1
        units.append(block_unit(place.block, place.input_size, (2 + place.stage, stage, place.position)))
    mix = architecture.feature_mix
    stage += mix.stride > 1
    units.append(_conv_unit(mix, 2 + len(architecture.stages), stage, architecture.feature_mix_size))
    return tuple(units)


def block_unit(
    block: Block, input_size: int, place: tuple[int, int, int] = (0, 0, 0), block_type: str = BLOCK_TYPE
) -> Unit:
    """The unit of an MBConv block that receives `input_size` x `input_size` pixels.

    `place` is its block, stage and position in the network.
    """
    mid, out_size = block.mid_channels, output_size(input_size, block.stride)
    convs = [
        ConvShape(mid, mid, block.kernel_size, block.stride, mid, input_size, out_size),
        ConvShape(mid, block.out_channels, 1, 1, 1, out_size, out_size),
    ]
    if block.expands:
        convs.insert(0, ConvShape(block.in_channels, mid, 1, 1, 1, input_size, input_size))
    squeeze = SqueezeExciteShape(len(convs) - 2, mid, block.se_channels, bias=True) if block.se_channels else None
    shortcut = Shortcut(pools=False, projection=None) if block.has_residual else None
    return Unit(*place, block_type, block.activation, tuple(convs), squeeze, shortcut, ends_in_activation=False)


def block_counts(block: Block, input_size: int) -> Counts:
    """Counts of an MBConv block that receives `input_size` x `input_size` pixels."""
    return unit_counts(block_unit(block, input_size))


def _conv_unit(conv: Conv, block: int, stage: int, size: int) -> Unit:
    out_size = output_size(size, conv.stride)
    layer = ConvShape(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, 1, size, out_size)
    return Unit(block, stage, 0, PLAIN, conv.activation, (layer,), None, None)
