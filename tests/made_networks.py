"""Small networks whose every number is random, norms' weights and running statistics included."""

from __future__ import annotations

import torch

import tfnas
from tfnas.nn.network import Network


def digits_architecture(operations=(3, 4, 1, 6, 7), depths=(1, 2, 2), num_classes=10):
    """An architecture of the digits space: kernels of 3 and 5, with and without squeeze-and-excite."""
    space = tfnas.space("digits")
    widths = [
        space.initial_width(place, space.operations[n]) for place, n in zip(space.blocks, operations, strict=True)
    ]
    return space.architecture(operations, depths, widths, num_classes)


def randomise(module, seed=0):
    """Overwrite the state of a module; returns it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else 0.5 * drawn)
    return module.eval()


def random_network(architecture=None, seed=0, **settings):
    """A Network in eval mode."""
    return randomise(Network(architecture or digits_architecture(), **settings), seed)
