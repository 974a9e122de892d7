"""The convolutions of a network in order, in the form that analytic scores read. No torch is needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tfnas.architecture import Architecture, Block, output_size
from tfnas.architecture import Conv as StemConv
from tfnas.structures.structure import Structure
from tfnas.structures.units import Bypass, Conv, SqueezeExcite, Stage, Unit, stages_of

_PLAIN = "conv"


@dataclass(frozen=True)
class Chain:
    """A network's units: one or more convolutions each, with or without a shortcut around them."""

    units: tuple[Unit, ...]
    is_video: bool = False

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Its stages: one ends before every change of resolution but the first layer's, and at the network's end."""
        return stages_of(self.units)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The family of every residual super-block, in order."""
        return tuple(family for family, _ in self._residual_blocks)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """The number of units of every residual super-block, in order. A stage of an architecture counts as one."""
        return tuple(depth for _, depth in self._residual_blocks)

    @cached_property
    def _residual_blocks(self) -> tuple[tuple[str, int], ...]:
        counts: dict[int, int] = {}
        names: dict[int, str] = {}
        for unit in self.units:
            if unit.family != _PLAIN:
                counts[unit.block] = counts.get(unit.block, 0) + 1
                names[unit.block] = unit.family
        return tuple((names[block], count) for block, count in counts.items())


def structure_chain(structure: Structure, image_size: int, frames: int, *, floor: bool) -> Chain:
    """The chain of a structure; sizes at a stride are rounded up, or down with `floor`."""
    return Chain(structure.units(image_size, frames, floor=floor), structure.is_video)


def architecture_chain(architecture: Architecture) -> Chain:
    """The chain of an architecture: stems, blocks, feature mix. The stems and the mix are no residual super-blocks."""
    size, stage, units = architecture.image_size, 0, []
    units.append(_stem_unit(architecture.first_stem, 0, 0, size))
    size = units[-1].resolution_out
    stage += architecture.second_stem.stride > 1
    units.append(_block_unit(architecture.second_stem, (1, stage, 0), size, _PLAIN))
    for place in architecture.blocks:
        stage += place.block.stride > 1
        units.append(_block_unit(place.block, (2 + place.stage, stage, place.position), place.input_size, "mbconv"))
    mix = architecture.feature_mix
    stage += mix.stride > 1
    units.append(_stem_unit(mix, 2 + len(architecture.stages), stage, architecture.feature_mix_size))
    return Chain(tuple(units))


def _stem_unit(conv: StemConv, block: int, stage: int, size: int) -> Unit:
    out = output_size(size, conv.stride)
    layer = Conv(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, 1, size, out)
    return Unit(block, stage, 0, _PLAIN, conv.activation, (layer,), None, None)


def _block_unit(block: Block, place: tuple[int, int, int], size: int, family: str) -> Unit:
    mid, out = block.mid_channels, output_size(size, block.stride)
    layers = [
        Conv(mid, mid, block.kernel_size, block.stride, mid, size, out),
        Conv(mid, block.out_channels, 1, 1, 1, out, out),
    ]
    if block.expands:
        layers.insert(0, Conv(block.in_channels, mid, 1, 1, 1, size, size))
    excite = SqueezeExcite(len(layers) - 2, mid, block.se_channels) if block.se_channels else None
    bypass = Bypass(pools=False, projection=None) if block.has_residual else None
    return Unit(*place, family, block.activation, tuple(layers), excite, bypass, ends_in_activation=False)
