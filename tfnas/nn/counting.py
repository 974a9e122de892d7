"""Parameters and multiply-accumulates of a network.

One multiply-accumulate is one MAC. Convolutions and linear layers count, one more per bias element and output
position, and the additions of pooling modules (one per input element); the means inside squeeze-and-excite, batch norm
and activations do not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tfnas.architecture import Architecture, Block, Conv, output_size
from tfnas.errors import InputError
from tfnas.space import IMAGE_CHANNELS


@dataclass(frozen=True)
class Counts:
    """`params` and `macs` of one image."""

    params: int
    macs: int


def _conv_macs(module: nn.Module, _: Tensor, output: Tensor) -> int:
    assert isinstance(module, nn.Conv2d)
    per_element = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
    return output.numel() * (per_element + (module.bias is not None))


def _linear_macs(module: nn.Module, _: Tensor, output: Tensor) -> int:
    assert isinstance(module, nn.Linear)
    return output.numel() * (module.in_features + (module.bias is not None))


def _pool_macs(_module: nn.Module, features: Tensor, _output: Tensor) -> int:
    return features.numel()


Rule = Callable[[nn.Module, Tensor, Tensor], int]

HANDLES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv_macs,
    nn.Linear: _linear_macs,
    nn.AdaptiveAvgPool2d: _pool_macs,
}


def count(network: nn.Module, input_size: int) -> Counts:
    """Counts for one image of `input_size` pixels a side. The network is not changed and nothing is computed.

    Raises InputError naming a module with parameters that there is no rule for: nothing is silently zero.
    """
    macs = _macs_by_module(network, input_size)
    return Counts(sum(parameter.numel() for parameter in network.parameters()), sum(macs.values()))


def _macs_by_module(network: nn.Module, input_size: int) -> dict[str, int]:
    """MACs of every module that there is a rule for, by its name."""
    shadow = copy.deepcopy(network).to("meta").eval()
    macs: dict[str, int] = {}

    def hook(name: str, rule: Rule) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            macs[name] = macs.get(name, 0) + rule(module, inputs[0], output)

        return add

    for name, module in shadow.named_modules():
        if type(module) in HANDLES:
            module.register_forward_hook(hook(name, HANDLES[type(module)]))
        elif any(True for _ in module.parameters(recurse=False)) and not isinstance(module, nn.BatchNorm2d):
            raise InputError(f"cannot count the MACs of {name} ({type(module).__name__}): no rule for it in HANDLES")
    with torch.no_grad():
        shadow(torch.empty(1, IMAGE_CHANNELS, input_size, input_size, device="meta"))
    return macs


# ---- the same for architectures, in closed form: no module is built ----------------------------------------------


def part_counts(architecture: Architecture) -> dict[str, Counts]:
    """Counts of every part by its name in a Network: `first_stem`, `stage1.0` (the first block of stage 1), ..."""
    stem, mix = architecture.first_stem, architecture.feature_mix
    stem_size = output_size(architecture.image_size, stem.stride)
    parts = {
        "first_stem": _conv_counts(stem, stem_size),
        "second_stem": block_counts(architecture.second_stem, stem_size),
    }
    for place in architecture.blocks:
        parts[f"stage{place.stage + 1}.{place.position}"] = block_counts(place.block, place.input_size)
    parts["feature_mix_layer"] = _conv_counts(mix, architecture.feature_mix_size)
    weights = (mix.out_channels + 1) * architecture.num_classes
    parts["classifier"] = Counts(weights, weights + mix.out_channels * architecture.feature_mix_size**2)
    return parts


def architecture_counts(architecture: Architecture) -> Counts:
    """Counts of the whole network."""
    parts = part_counts(architecture).values()
    return Counts(sum(part.params for part in parts), sum(part.macs for part in parts))


def block_counts(block: Block, input_size: int) -> Counts:
    """Counts of an MBConv block that receives `input_size` x `input_size` pixels."""
    mid, se, pixels = block.mid_channels, block.se_channels, output_size(input_size, block.stride) ** 2
    expansion = block.in_channels * mid if block.expands else 0
    depthwise, projection = mid * block.kernel_size**2, mid * block.out_channels
    excite = 2 * mid * se + se + mid if se else 0
    norms = 2 * (mid * block.expands + mid + block.out_channels)
    macs = expansion * input_size**2 + (depthwise + projection) * pixels + excite
    return Counts(expansion + depthwise + projection + excite + norms, macs)


def _conv_counts(conv: Conv, size: int) -> Counts:
    weights = conv.in_channels * conv.out_channels * conv.kernel_size**2
    return Counts(weights + 2 * conv.out_channels, weights * size**2)
