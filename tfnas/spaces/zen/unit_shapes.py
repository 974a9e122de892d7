"""Units of structures by what their latency depends on, whatever network they stand in: what tables of structures hold.

The classifier is one, too. Bits of quantised networks do not count, because everything here computes in floats.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from tfnas.core.errors import InputError
from tfnas.core.units import Counts, Unit, classifier_counts, unit_counts
from tfnas.spaces.zen.block_names import HINT, registered_type
from tfnas.spaces.zen.block_units import KNOWN_UNITS, block_unit, unit_keys
from tfnas.spaces.zen.structure import make_unit
from tfnas.spaces.zen.super_block import BLOCK_TYPES, Notation, SuperBlock
from tfnas.spaces.zen.zen_family import StructureArchitecture

CLASSIFIER = "classifier"
"""The block type of a global pool with a linear layer, from `in_channels` to `out_channels` classes."""


class UnitShape(NamedTuple):
    """A unit that receives `size` x `size` pixels; `inside` is the output of its first convolution.

    Of units of one convolution, and of classifiers, `inside` is 0. `projected` says whether the shortcut has a
    convolution.
    """

    notation: Notation
    block_type: str
    activation: str
    kernel: int
    groups: int
    in_channels: int
    inside: int
    out_channels: int
    stride: int
    size: int
    projected: bool
    squeeze_excite: bool

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels in, inside and out; of units of one convolution out for inside."""
        return self.in_channels, self.inside or self.out_channels, self.out_channels

    @property
    def kind(self) -> UnitShape:
        """All of it but its channels, which are 0; `inside` is 1 where there are several convolutions."""
        return self._replace(in_channels=0, inside=min(self.inside, 1), out_channels=0)

    @property
    def text(self) -> str:
        """Short, and different for different shapes: `k1kxk1 k3 16-64-16 s1 at 32 px`."""
        inside = f"-{self.inside}" if self.inside else ""
        words = [
            self.block_type if self.block_type != "conv" else f"conv {self.activation}",
            f"k{self.kernel}",
            f"{self.in_channels}{inside}-{self.out_channels}",
            f"s{self.stride} at {self.size} px",
            *([f"in {self.groups} groups"] if self.groups > 1 else []),
            *(["with squeeze-and-excite"] if self.squeeze_excite else []),
            *(["with projection"] if self.projected else []),
        ]
        return " ".join(words)

    @property
    def counts(self) -> Counts:
        """Parameters and multiply-accumulates, of one image."""
        if self.block_type == CLASSIFIER:
            return classifier_counts(self.in_channels, self.out_channels, self.size**2)
        return unit_counts(self.unit())

    def unit(self) -> Unit:
        """The unit. Raises InputError where there is none of these fields."""
        return _unit(self)


@lru_cache(KNOWN_UNITS)
def _unit(shape: UnitShape) -> Unit:
    block_type = BLOCK_TYPES.get((shape.notation, shape.block_type)) or registered_type(shape.block_type)
    if block_type is None:
        raise InputError(f"there is no block type {shape.block_type!r} in notation {shape.notation}; {HINT}")
    block = SuperBlock(
        block_type=shape.block_type,
        kernel=shape.kernel,
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        stride=shape.stride,
        bottleneck=shape.inside or None,
        expansion=1 if block_type.expands_output else None,  # the channels inside say it
        groups=shape.groups,
        activation=shape.activation if shape.block_type == "conv" else None,
    )
    first = shape.projected or shape.stride > 1
    unit = make_unit(block, shape.notation, first, shape.channels, shape.size, shape.squeeze_excite)
    found = unit.activation, unit.projection is not None, unit.squeeze_excite is not None, len(unit.convs) > 1
    if found != (shape.activation, shape.projected, shape.squeeze_excite, shape.inside > 0):
        raise InputError(f"{shape.text} contradicts itself: there is no such unit")
    return unit


def unit_shape(unit: Unit, notation: Notation) -> UnitShape:
    """What the latency of a unit of a network depends on."""
    first = unit.convs[0]
    return UnitShape(
        notation,
        unit.block_type,
        unit.activation,
        max(conv.kernel for conv in unit.convs),
        first.groups,
        unit.in_channels,
        first.out_channels if len(unit.convs) > 1 else 0,
        unit.out_channels,
        unit.stride,
        unit.resolution_in,
        unit.projection is not None,
        unit.squeeze_excite is not None,
    )


def block_shapes(block: SuperBlock, notation: Notation, size: int, use_se: bool) -> Iterator[tuple[UnitShape, int]]:
    """The kinds of units of a block that receives `size` x `size` pixels, and how many there are of each."""
    block_type = BLOCK_TYPES[notation, block.block_type]
    squeezes = block_type.squeezes(use_se)
    for key, times in unit_keys(block, notation):
        unit = block_unit(key)
        inputs, inside, outputs = key[4]
        shape = UnitShape(
            notation,
            block.block_type,
            block.activation or block_type.activation,
            block.kernel,
            block.groups,
            inputs,
            inside if len(unit.convs) > 1 else 0,
            outputs,
            unit.stride,
            size,
            unit.projects,
            squeezes,
        )
        size = -(-size // unit.stride)
        yield shape, times


def classifier_shape(notation: Notation, channels: int, num_classes: int, size: int) -> UnitShape:
    """The classifier behind a map of `size` x `size` pixels."""
    return UnitShape(notation, CLASSIFIER, "none", 1, 1, channels, 0, num_classes, 1, size, False, False)


def architecture_shapes(architecture: StructureArchitecture) -> list[tuple[UnitShape, int]]:
    """All units of a network with how many there are, in order; the classifier is the last."""
    structure, size = architecture.structure, architecture.image_size
    found: list[tuple[UnitShape, int]] = []
    for block in structure.blocks:
        found += block_shapes(block, structure.notation, size, architecture.use_se)
        size = -(-size // block.stride)
    classifier = classifier_shape(structure.notation, structure.out_channels, architecture.num_classes, size)
    return [*found, (classifier, 1)]
