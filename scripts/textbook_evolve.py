"""A training-free search as one would write it down first, one candidate at a time: what `bench_evolve.py` measures
against.

A network is built as modules for every score, in contiguous tensors; both inputs pass through it one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfnas.core.units import Unit
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.super_block import BATCH_NORM_EPSILON

GAMMA = 0.01


class ChainNetwork(nn.Module):
    """A structure without shortcuts and squeeze-and-excite, with a classifier."""

    def __init__(self, structure: Structure, num_classes: int) -> None:
        super().__init__()
        epsilon = BATCH_NORM_EPSILON[structure.notation]
        self.units = nn.ModuleList(ChainUnit(unit, epsilon) for unit in structure.units(structure.total_stride))
        self.classifier = nn.Linear(structure.out_channels, num_classes)

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

    def __init__(self, unit: Unit, epsilon: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for conv in unit.convs:
            sizes = conv.in_channels, conv.out_channels, conv.kernel, conv.stride, conv.kernel // 2
            layer = nn.Conv2d(*sizes, groups=conv.groups, bias=False)
            self.layers.append(nn.Sequential(layer, nn.BatchNorm2d(conv.out_channels, epsilon), nn.ReLU()))

    def forward(self, features: Tensor) -> Tensor:
        """The output of the last layer."""
        for layer in self.layers:
            features = layer(features)
        return features


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
