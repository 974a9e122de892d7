"""A training-free search as one would write it down first, one candidate at a time: what `bench_evolve.py` measures
against.

Networks are texts. For a child its parent is parsed, everything that may take the place of a block is listed, one entry
is chosen, and the result becomes a text again, is parsed and split. A network is built as modules for every count, then
for the score, in contiguous tensors; both inputs of the Zen-Score pass through it one after the other. It is the way of
working of the ZenNAS program on the space of its CIFAR searches, with sizes of true convolutions.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tfnas.core.units import Unit
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.super_block import BATCH_NORM_EPSILON

GAMMA = 0.01
RESIDUAL_TYPES = (("ResK1K3K1", "ResK1K5K1", "ResK1K7K1"), ("ResK3K3", "ResK5K5", "ResK7K7"))
WIDTH_SCALES = (2.5, 2, 1.5, 1.25, 1, 1 / 1.25, 1 / 1.5, 1 / 2, 1 / 2.5)
MOST_CHANNELS, SPLIT_LAYERS, FEW_MEMBERS = 2048, 6, 10


# ---- texts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A super-block as its text has it; a convolution has no bottleneck."""

    kind: str
    in_channels: int
    out_channels: int
    stride: int
    bottleneck: int | None
    layers: int

    def to_text(self) -> str:
        """As it is read."""
        middle = "" if self.bottleneck is None else f"{self.bottleneck},"
        return f"Super{self.kind}({self.in_channels},{self.out_channels},{self.stride},{middle}{self.layers})"


def parse(text: str) -> list[Block]:
    """The blocks of a network."""
    blocks = []
    for kind, written in re.findall(r"Super(\w+)\(([\d,]+)\)", text):
        numbers = [int(number) for number in written.split(",")]
        bottleneck = numbers[3] if len(numbers) == 5 else None
        blocks.append(Block(kind, numbers[0], numbers[1], numbers[2], bottleneck, numbers[-1]))
    return blocks


def to_text(blocks: list[Block]) -> str:
    """The text of a network."""
    return "".join(block.to_text() for block in blocks)


def widths(width: int) -> list[int]:
    """The widths that a width may become."""
    scaled = [min(MOST_CHANNELS, max(8, width * scale)) for scale in WIDTH_SCALES]
    return sorted({max(8, 8 * round(width / 8)) for width in scaled})


def candidates(block: Block) -> list[str]:
    """Everything that may take the place of a block."""
    if block.bottleneck is None:
        return [replace(block, out_channels=width, layers=1).to_text() for width in widths(block.out_channels)]
    found = []
    for kind in itertools.chain(*RESIDUAL_TYPES):
        depths = [block.layers + step for step in (-2, -1, 0, 1, 2) if block.layers + step > 0]
        for width, layers, bottleneck in itertools.product(
            widths(block.out_channels), depths, widths(block.bottleneck)
        ):
            found.append(f"Super{kind}({block.in_channels},{width},{block.stride},{bottleneck},{layers})")
    return found


def mutated(text: str, changes: int) -> str:
    """The network with so many blocks replaced, or fewer where one is drawn twice."""
    blocks, chosen = parse(text), set()
    for _ in range(changes):
        number = random.randrange(len(blocks))
        if number not in chosen:
            chosen.add(number)
            (blocks[number],) = parse(random.choice(candidates(blocks[number])))
    for number in range(1, len(blocks)):
        blocks[number] = replace(blocks[number], in_channels=blocks[number - 1].out_channels)
    return split(to_text(blocks))


def split(text: str) -> str:
    """With residual blocks of many layers divided in two."""
    found = []
    for block in parse(text):
        if block.bottleneck is None or block.layers < SPLIT_LAYERS:
            found.append(block)
            continue
        first = SPLIT_LAYERS // 2
        found.append(replace(block, layers=first))
        rest = replace(block, in_channels=block.out_channels, stride=1, layers=block.layers - first)
        found.append(rest)
    return to_text(found)


# ---- the search -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """Of a search: parameters, MACs, layers of super-blocks, pixels a side, classes, and members."""

    params: float
    macs: float
    layers: int
    image_size: int
    num_classes: int
    population: int


class TextbookSearch:
    """A population of texts with their scores, which changes one candidate at a time."""

    def __init__(self, initial: str, limits: Limits, score: Callable[[str], float]) -> None:
        self.initial, self.limits, self.score = initial, limits, score
        self.texts: list[str] = []
        self.scores: list[float] = []

    def iterate(self) -> None:
        """Draw a child; it joins where it is within the limits."""
        while len(self.texts) > self.limits.population:
            worst = self.scores.index(min(self.scores))
            del self.texts[worst], self.scores[worst]
        few = len(self.texts) <= FEW_MEMBERS
        child = split(mutated(self.initial, 1) if few else mutated(random.choice(self.texts), 2))
        if self._is_within_limits(child):
            self.scores.append(self.score(child))
            self.texts.append(child)

    def _is_within_limits(self, text: str) -> bool:
        """Whether it is, one network for each of them."""
        limits = self.limits
        if built(text, limits.num_classes, shortcuts=True).num_layers > limits.layers:
            return False
        if num_params(built(text, limits.num_classes, shortcuts=True)) > limits.params:
            return False
        return built(text, limits.num_classes, shortcuts=True).macs(limits.image_size) <= limits.macs


def built(text: str, num_classes: int, shortcuts: bool = False) -> ChainNetwork:
    """The network of a text."""
    return ChainNetwork(Structure.parse(text), num_classes, shortcuts)


def num_params(network: nn.Module) -> int:
    """Of all its modules."""
    return sum(parameter.numel() for parameter in network.parameters())


# ---- networks -------------------------------------------------------------------------------------------------------


class ChainNetwork(nn.Module):
    """A structure without squeeze-and-excite, with a classifier. With `shortcuts` it can be counted, not run."""

    def __init__(self, structure: Structure, num_classes: int, shortcuts: bool = False) -> None:
        super().__init__()
        epsilon = BATCH_NORM_EPSILON[structure.notation]
        units = structure.units(structure.total_stride)
        self.units = nn.ModuleList(ChainUnit(unit, epsilon, shortcuts) for unit in units)
        self.classifier = nn.Linear(structure.out_channels, num_classes)
        self.num_layers = sum(block.layers for block in structure.blocks)

    def macs(self, size: int) -> int:
        """Of one image of `size` pixels a side, with the sum of the pool before the classifier."""
        total = 0
        for unit in self.units:
            assert isinstance(unit, ChainUnit)
            of_unit, size = unit.macs(size)
            total += of_unit
        return total + num_params(self.classifier) + size**2 * self.classifier.in_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The last feature map."""
        for unit in self.units:
            images = unit(images)
        return images


class ChainUnit(nn.Module):
    """Convolutions, each with batch norm and ReLU."""

    def __init__(self, unit: Unit, epsilon: float, shortcuts: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.projection: nn.Module | None = None
        if shortcuts and unit.projection is not None:
            conv = unit.projection
            layer = nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride)
            self.projection = nn.Sequential(layer, nn.BatchNorm2d(conv.out_channels, epsilon))
        for conv in unit.convs:
            sizes = conv.in_channels, conv.out_channels, conv.kernel, conv.stride, conv.kernel // 2
            layer = nn.Conv2d(*sizes, groups=conv.groups, bias=False)
            self.layers.append(nn.Sequential(layer, nn.BatchNorm2d(conv.out_channels, epsilon), nn.ReLU()))

    def forward(self, features: Tensor) -> Tensor:
        """The output of the last layer."""
        for layer in self.layers:
            features = layer(features)
        return features

    def macs(self, size: int) -> tuple[int, int]:
        """Of one image, and the pixels a side that come out."""
        total = 0
        for layer in self.layers:
            assert isinstance(layer, nn.Sequential)
            conv = layer[0]
            size = -(-size // conv.stride[0])
            total += conv.weight.numel() * size**2
        if self.projection is not None:
            total += num_params(self.projection[0]) * size**2
        return total, size


def draw_weights(network: nn.Module) -> None:
    """Standard normal weights, biases 0, batch norms neutral."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def sensitivity(network: ChainNetwork, images: Tensor, changed: Tensor) -> float:
    """The Zen-Score of a network in training mode, as the ZenNAS program computes it."""
    first, second = network.features(images), network.features(changed)
    score = (first - second).abs().sum((1, 2, 3)).mean().log()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            score = score + module.running_var.mean().sqrt().log()
    return float(score)


def zen_score(structure: Structure, image_size: int, batch_size: int, num_classes: int) -> float:
    """The Zen-Score of a structure with random weights and images."""
    network = ChainNetwork(structure, num_classes).train()
    draw_weights(network)
    shape = batch_size, structure.in_channels, image_size, image_size
    images = torch.randn(shape)
    return sensitivity(network, images, images + GAMMA * torch.randn(shape))
