"""Parameters and multiply-accumulates of a network, by walking through it.

What counts is said in `tfnas.core.units`, which finds the same in closed form.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from tfnas.core.errors import InputError
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.core.units import Counts


def _conv_macs(module: nn.Module, _: Tensor, output: Tensor) -> int:
    assert isinstance(module, _ConvNd)
    per_element = module.in_channels // module.groups * math.prod(module.kernel_size)
    return output.numel() * (per_element + (module.bias is not None))


def _linear_macs(module: nn.Module, _: Tensor, output: Tensor) -> int:
    assert isinstance(module, nn.Linear)
    return output.numel() * (module.in_features + (module.bias is not None))


def _pool_macs(_module: nn.Module, features: Tensor, _output: Tensor) -> int:
    return features.numel()


Rule = Callable[[nn.Module, Tensor, Tensor], int]

HANDLES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: _conv_macs,
    nn.Conv2d: _conv_macs,
    nn.Conv3d: _conv_macs,
    nn.Linear: _linear_macs,
    nn.AdaptiveAvgPool1d: _pool_macs,
    nn.AdaptiveAvgPool2d: _pool_macs,
    nn.AdaptiveAvgPool3d: _pool_macs,
}


def count(network: nn.Module, input_size: int, frames: int = 16) -> Counts:
    """Counts for one image of `input_size` pixels a side, with the channels that the first convolution takes.

    A network whose first convolution is three-dimensional gets one clip of so many frames. The network is not changed
    and nothing is computed. Raises InputError naming a module with parameters that there is no rule for: nothing is
    silently zero.
    """
    macs = _macs_by_module(network, (*input_shape(network, frames), input_size, input_size))
    return Counts(num_params(network), sum(macs.values()))


def num_params(network: nn.Module) -> int:
    """The number of parameters, each counted once."""
    return sum(parameter.numel() for parameter in network.parameters())


def input_shape(network: nn.Module, frames: int) -> tuple[int, ...]:
    """What comes before height and width in the shape of one input: channels, and frames where it takes clips.

    They are those of the first convolution; three channels where there is none.
    """
    first = next((module for module in network.modules() if isinstance(module, _ConvNd)), None)
    if first is None:
        return (IMAGE_CHANNELS,)
    return (first.in_channels, frames) if isinstance(first, nn.Conv3d) else (first.in_channels,)


def _macs_by_module(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """MACs of every module that there is a rule for, by its name, for an input of that shape."""
    shadow = copy.deepcopy(network).to("meta").eval()
    macs: dict[str, int] = {}

    def hook(name: str, rule: Rule) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            macs[name] = macs.get(name, 0) + rule(module, inputs[0], output)

        return add

    for name, module in shadow.named_modules():
        if type(module) in HANDLES:
            module.register_forward_hook(hook(name, HANDLES[type(module)]))
        elif any(True for _ in module.parameters(recurse=False)) and not isinstance(module, _BatchNorm):
            raise InputError(f"cannot count the MACs of {name} ({type(module).__name__}): no rule for it in HANDLES")
    with torch.no_grad():
        shadow(torch.empty(1, *shape, device="meta"))
    return macs
