"""What is measured for a table: the blocks and widths of a space, and modules with inputs to time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from tfnas.architecture import Architecture, Block
from tfnas.latency.keys import latency_key
from tfnas.latency.measure import Load
from tfnas.nn import Classifier, ConvBNAct, MBConv
from tfnas.space import SearchSpace


def widths_to_measure(low: int, high: int, count: int) -> list[int]:
    """Up to `count` widths from lowest to highest; those between the ends are odd and begin right beside the ends.

    The ends of our ranges are multiples of 8 or 16 channels, which the CPU's vector units like and which are up to a
    tenth faster than the widths around them. Points at such widths only would promise this to every width between.
    """
    inner = np.linspace(low + 1, high - 1, count - 2) if count != 3 else np.array([(low + high) / 2])
    odd = inner.round().astype(int) | 1
    return sorted({low, high, *(int(width) for width in odd if low < width < high)})


def places_to_measure(space: SearchSpace, widths: int) -> Iterator[tuple[tuple[str, int], tuple[Block, int]]]:
    """(key, width) -> (block, input size) of everything the space can hold; blocks that share a key share points."""
    for place in space.blocks:
        for operation in space.operations:
            for width in widths_to_measure(*space.width_range(place, operation), widths):
                block = space.block(place, operation, width)
                yield (latency_key(block, place.input_size), width), (block, place.input_size)


def random_architectures(space: SearchSpace, count: int, num_classes: int, seed: int) -> list[Architecture]:
    """Networks with operations, depths and widths drawn uniformly."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        operations = [rng.randrange(len(space.operations)) for _ in space.blocks]
        ranges = [
            space.width_range(place, space.operations[operation])
            for place, operation in zip(space.blocks, operations, strict=True)
        ]
        depths = [rng.choice(choices) for choices in space.depth_choices]
        widths = [rng.randint(low, high) for low, high in ranges]
        found.append(space.architecture(operations, depths, widths, num_classes))
    return found


class LoadMaker:
    """Puts modules and random inputs on a device in a number type, channels last. Inputs of one shape are shared."""

    def __init__(self, batch: int, dtype: torch.dtype, device: str, seed: int) -> None:
        self._batch, self._dtype, self._device = batch, dtype, device
        self._inputs: dict[tuple[int, int], torch.Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def load(self, module: nn.Module, channels: int, size: int) -> Load:
        """The module with an input of `channels` x `size` x `size`."""
        if (channels, size) not in self._inputs:
            values = torch.randn(self._batch, channels, size, size, generator=self._generator)
            values = values.to(self._device, self._dtype)
            self._inputs[channels, size] = values.contiguous(memory_format=torch.channels_last)
        module = module.eval().to(self._device, self._dtype).to(memory_format=torch.channels_last)
        return Load(module, self._inputs[channels, size])

    def block(self, block: Block, input_size: int) -> Load:
        """A block with the input it receives."""
        return self.load(MBConv(block), block.in_channels, input_size)

    def base_parts(self, architecture: Architecture) -> list[Load]:
        """Stems, feature mix and classifier, in the order of `BASE_PARTS`."""
        stem, mix, mix_size = architecture.first_stem, architecture.feature_mix, architecture.feature_mix_size
        classifier = Classifier(mix.out_channels, architecture.num_classes)
        return [
            self.load(ConvBNAct(stem), stem.in_channels, architecture.image_size),
            self.block(architecture.second_stem, -(-architecture.image_size // stem.stride)),
            self.load(ConvBNAct(mix), mix.in_channels, mix_size),
            self.load(classifier, mix.out_channels, mix_size),
        ]
