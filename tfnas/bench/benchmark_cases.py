"""What can be timed: blocks, the other parts of a network, and whole networks, each with the input it receives."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tfnas.core.architecture import Architecture
from tfnas.core.mbconv_blocks import Block
from tfnas.core.space import IMAGE_CHANNELS, SearchSpace
from tfnas.nn.blocks import Classifier, ConvBNAct, MBConv
from tfnas.nn.network import Network
from tfnas.spaces.families import build_network
from tfnas.spaces.mbconv.table_keys import key_with_width
from tfnas.spaces.zen.structure_network import Maker, ResidualUnit
from tfnas.spaces.zen.super_block import BATCH_NORM_EPSILON
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, UnitShape, architecture_shapes
from tfnas.spaces.zen.zen_family import StructureArchitecture


@dataclass(frozen=True)
class BenchmarkCase:
    """Something to time: `make` builds the module (in float32 on the CPU); it receives (batch, channels, size, size).

    `name` tells cases apart and is the same in every process.
    """

    name: str
    make: Callable[[], nn.Module]
    channels: int
    size: int


def block_case(block: Block, input_size: int) -> BenchmarkCase:
    """A block that receives `input_size` x `input_size` pixels."""
    return BenchmarkCase(key_with_width(block, input_size), lambda: MBConv(block), block.in_channels, input_size)


def network_case(architecture: Architecture) -> BenchmarkCase:
    """A whole network, images in, logits out."""
    return BenchmarkCase(architecture.to_text(), lambda: Network(architecture), IMAGE_CHANNELS, architecture.image_size)


def stem_cases(architecture: Architecture) -> dict[str, BenchmarkCase]:
    """Stems and feature mix of an architecture, under the names of `STEM_PARTS`."""
    stem, mix, mix_size = architecture.first_stem, architecture.feature_mix, architecture.feature_mix_size
    return {
        "first_stem": BenchmarkCase("first_stem", lambda: ConvBNAct(stem), stem.in_channels, architecture.image_size),
        "second_stem": block_case(architecture.second_stem, -(-architecture.image_size // stem.stride)),
        "feature_mix": BenchmarkCase("feature_mix", lambda: ConvBNAct(mix), mix.in_channels, mix_size),
    }


def classifier_case(architecture: Architecture, num_classes: int) -> BenchmarkCase:
    """The classifier of an architecture with so many classes, its global pool included."""
    channels, size = architecture.feature_mix.out_channels, architecture.feature_mix_size
    return BenchmarkCase(f"classifier_n{num_classes}", lambda: Classifier(channels, num_classes), channels, size)


def unit_case(shape: UnitShape) -> BenchmarkCase:
    """A unit of a structure, or the classifier."""
    return BenchmarkCase(shape.text, lambda: _unit_module(shape), shape.in_channels, shape.size)


def structure_reference_case(architecture: StructureArchitecture) -> BenchmarkCase:
    """The unit that is run before every timed call for a table of structures: that of most multiply-accumulates."""
    units = [shape for shape, _ in architecture_shapes(architecture)][:-1]
    return unit_case(max(units, key=lambda shape: shape.counts.macs))


def structure_case(architecture: StructureArchitecture) -> BenchmarkCase:
    """A whole structure, images in, logits out."""
    channels, size = architecture.in_channels, architecture.image_size
    return BenchmarkCase(architecture.to_text(), lambda: build_network(architecture), channels, size)


def _unit_module(shape: UnitShape) -> nn.Module:
    if shape.block_type == CLASSIFIER:
        return Classifier(shape.in_channels, shape.out_channels)
    return ResidualUnit(shape.unit(), Maker(2, BATCH_NORM_EPSILON[shape.notation], batch_norm=True), residuals=True)


def random_architectures(space: SearchSpace, count: int, num_classes: int, seed: int) -> list[Architecture]:
    """Networks with operations, depths and widths drawn uniformly."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        operations = [rng.randrange(len(space.operations)) for _ in space.blocks]
        depths = [rng.choice(choices) for choices in space.depth_choices]
        widths = [
            rng.choice(space.widths(place, space.operations[operation]))
            for place, operation in zip(space.blocks, operations, strict=True)
        ]
        found.append(space.architecture(operations, depths, widths, num_classes))
    return found
