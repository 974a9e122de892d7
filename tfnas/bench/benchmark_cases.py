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
from tfnas.spaces.mbconv.table_keys import key_with_width


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
