"""What passes through a network on its way: feature maps, logits, the inputs of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.nn.blocks import SqueezeExcite
from tfnas.nn.network import Network
from tfnas.spaces.zen.structure_network import NormedSqueezeExcite, StructureNetwork

_POOLS = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool3d,
)
_NOT_SCALED_BACK = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LocalResponseNorm,
)
GATES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.SiLU,
    nn.GELU,
    nn.Mish,
    nn.Hardswish,
)
"""Activations that let positive inputs through and stop negative ones, more or less."""


def feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map before the global pool, (N, channels, [frames,] height, width).

    A module that is not of this package is watched: it is the last map of a module before the last adaptive pool or the
    end. Raises InputError where there is none.
    """
    if isinstance(network, Network | StructureNetwork):
        found: Tensor = network.features(images)
        return found
    latest: list[Tensor] = []
    pooled = [False]

    def see(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(module, _POOLS):
            if isinstance(inputs[0], Tensor):
                latest[:], pooled[0] = [inputs[0]], True
        elif isinstance(output, Tensor) and output.dim() >= 4:
            if pooled[0] and output.shape[2:].numel() == 1:
                return  # inside squeeze-and-excite, or a head of 1x1 convolutions
            latest[:], pooled[0] = [output], False

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(see) for module in leaves]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    if not latest:
        raise InputError(f"{type(network).__name__} has no feature map (N, channels, height, width) to look at")
    return latest[0]


def logits_of(network: nn.Module, images: Tensor, score: str) -> Tensor:
    """Logits (N, classes). Raises InputError where the network gives something else."""
    output = network(images)
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"{score} needs logits (images, classes), and {type(network).__name__} gives {shape}")
    return output


@contextmanager
def hook_activations(
    network: nn.Module,
    see: Callable[[Tensor], None],
    kinds: tuple[type[nn.Module], ...] = GATES,
    *,
    score: str,
    squeeze_excite: bool = True,
) -> Iterator[None]:
    """Show the input (N, ...) of every activation module in the passes of the body.

    Those inside squeeze-and-excite of this package's networks can be left out. Raises InputError where there is none.
    """
    inside: set[nn.Module] = set()
    if not squeeze_excite:
        for module in network.modules():
            if isinstance(module, SqueezeExcite | NormedSqueezeExcite):
                inside.update(module.modules())
    modules = [module for module in network.modules() if isinstance(module, kinds) and module not in inside]
    if not modules:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{score} looks at activation modules ({names}), and {type(network).__name__} has none")

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(inputs[0].detach())

    handles = [module.register_forward_pre_hook(hook) for module in modules]  # before an in-place one overwrites it
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_norms(network: nn.Module, score: str) -> None:
    """Raise InputError for norms that hide the scale of features and are not batch norms."""
    for name, module in network.named_modules():
        if isinstance(module, _NOT_SCALED_BACK):
            raise InputError(
                f"{score} adds up the scales that batch norms take away, and cannot see that of {name} "
                f"({type(module).__name__})"
            )


def total(output: object) -> Tensor:
    """The sum of all numbers in a tensor, or in a list or tuple of tensors."""
    if isinstance(output, Tensor):
        return output.sum()
    if isinstance(output, list | tuple) and output:
        return torch.stack([total(part) for part in output]).sum()
    raise InputError(f"the network gives a {type(output).__name__}, and a tensor or a list of tensors is needed")
