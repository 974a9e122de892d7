"""The random numbers that scores are computed with, from a generator of their own.

Fresh weights for a network that is to be scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


class RandomGenerator:
    """Random numbers on the CPU in single precision, whatever device and precision the score is computed in.

    So a seed stands for the same weights and images everywhere. A subclass may take them from elsewhere.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def images(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers."""
        return self._normal(shape)

    def labels(self, num_classes: int, count: int) -> Tensor:
        """Uniform classes (count,)."""
        return torch.randint(0, num_classes, (count,), generator=self.generator)

    def weight(self, place: int, shape: Sequence[int]) -> Tensor:  # noqa: ARG002 - a subclass may go by the place
        """Standard normal numbers for the weight of the convolution or linear layer that stands at `place`."""
        return self._normal(shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers between -1 and 1."""
        return torch.rand(tuple(shape), generator=self.generator, dtype=torch.float32) * 2 - 1

    def _normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, dtype=torch.float32)


Weighted = _ConvNd | nn.Linear


def weighted_modules(network: nn.Module) -> Iterator[Weighted]:
    """Convolutions and linear layers, in the order of `network.modules()`."""
    for module in network.modules():
        if isinstance(module, _ConvNd | nn.Linear):
            yield module


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch norms, in the order of `network.modules()`."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


@torch.no_grad()
def initialise(network: nn.Module, draws: RandomGenerator, rule: str, *, reset_statistics: bool = True) -> None:
    """Draw the weights of convolutions and linear layers; biases 0, batch norms neutral. Other modules stay.

    Rules: `normal`, variance 1; `kaiming`, normal of variance 2 / fan_in; `kaiming_fan_out`, 2 / fan_out; `torch`,
    PyTorch's default (uniform within 1 / sqrt(fan_in), biases too). `reset_statistics` puts running statistics to 0
    and 1.
    """
    for place, module in enumerate(weighted_modules(network)):
        module.weight.copy_(_drawn(module.weight, draws, place, rule))
        if module.bias is not None and rule == "torch":
            module.bias.copy_(draws.uniform(module.bias.shape) / math.sqrt(module.weight[0].numel()))
        elif module.bias is not None:
            module.bias.zero_()
    for norm in batch_norms(network):
        if norm.affine:
            norm.weight.fill_(1.0)
            norm.bias.zero_()
        if reset_statistics:
            norm.reset_running_stats()


def _drawn(weight: Tensor, draws: RandomGenerator, place: int, rule: str) -> Tensor:
    """The weight of a layer by a rule."""
    fan_in = weight[0].numel()
    if rule == "torch":
        return draws.uniform(weight.shape) / math.sqrt(fan_in)
    numbers = draws.weight(place, weight.shape)
    if rule == "kaiming":
        return numbers * math.sqrt(2 / fan_in)
    if rule == "kaiming_fan_out":
        return numbers * math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))
    return numbers
