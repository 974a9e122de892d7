"""Networks for scores: built with random weights of their own, or private copies of what a caller hands in.

All random numbers come from one generator on the CPU, so a seed stands for the same weights and images on every device.
Needs torch, which the rest of an analytic score does not.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.nn.network import Network
from tfnas.spaces.families import build_network
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.utils.devices import named_device

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)


_BLOCK = 2**16
_BLOCKS_IN_MEMORY = 256


@lru_cache(maxsize=_BLOCKS_IN_MEMORY)
def _normal_block(seed: int, number: int) -> Tensor:
    """Block `number` of the sequence of standard normal numbers that a seed stands for; not to be written."""
    own_seed = int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1)[0])
    return torch.randn(_BLOCK, generator=torch.Generator().manual_seed(own_seed), dtype=torch.float32)


class RandomGenerator:
    """Random numbers on the CPU in single precision, whatever device and precision the score is computed in.

    The normal numbers of a seed are one sequence, of which each call takes the next. Up to 64 MiB of it stay in memory:
    the networks of a set are scored with one seed, and drawing takes much of a score's time.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self._taken = 0

    def images(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers."""
        return self._normal(shape)

    def labels(self, num_classes: int, count: int) -> Tensor:
        """Uniform classes (count,)."""
        return torch.randint(0, num_classes, (count,), generator=self.generator)

    def weight(self, place: int, shape: Sequence[int]) -> Tensor:  # noqa: ARG002 - for subclasses
        """Standard normal numbers for the weight of convolution or linear layer number `place`."""
        return self._normal(shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers between -1 and 1."""
        return torch.rand(tuple(shape), generator=self.generator, dtype=torch.float32) * 2 - 1

    def signs(self, shape: Sequence[int]) -> Tensor:
        """-1 or 1, each with probability 1/2."""
        return torch.randint(0, 2, tuple(shape), generator=self.generator, dtype=torch.float32) * 2 - 1

    def _normal(self, shape: Sequence[int]) -> Tensor:
        start, self._taken = self._taken, self._taken + math.prod(shape)
        blocks = range(start // _BLOCK, -(-self._taken // _BLOCK))
        pieces = [
            _normal_block(self.seed, number)[max(0, start - number * _BLOCK) : self._taken - number * _BLOCK]
            for number in blocks
        ]
        return torch.cat(pieces).view(tuple(shape))  # a copy, which may be changed


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
def initialise(network: nn.Module, generator: RandomGenerator, rule: str, *, reset_statistics: bool = True) -> None:
    """Initialise convolutions and linear layers; biases 0, batch norms neutral. Other modules stay as they are.

    Rules: `normal`, variance 1; `kaiming`, normal of variance 2 / fan_in; `kaiming_fan_out`, 2 / fan_out; `torch`,
    PyTorch's default (uniform within 1 / sqrt(fan_in), biases too). `reset_statistics` resets running statistics to 0
    and 1.
    """
    for place, module in enumerate(weighted_modules(network)):
        module.weight.copy_(_random_weight(module.weight, generator, place, rule))
        if module.bias is not None and rule == "torch":
            module.bias.copy_(generator.uniform(module.bias.shape) / math.sqrt(module.weight[0].numel()))
        elif module.bias is not None:
            module.bias.zero_()
    for norm in batch_norms(network):
        if norm.affine:
            norm.weight.fill_(1.0)
            norm.bias.zero_()
        if reset_statistics:
            norm.reset_running_stats()


def _random_weight(weight: Tensor, generator: RandomGenerator, place: int, rule: str) -> Tensor:
    """A new weight of a layer by a rule."""
    fan_in = weight[0].numel()
    if rule == "torch":
        return generator.uniform(weight.shape) / math.sqrt(fan_in)
    numbers = generator.weight(place, weight.shape)
    if rule == "kaiming":
        return numbers * math.sqrt(2 / fan_in)
    if rule == "kaiming_fan_out":
        return numbers * math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))
    return numbers


# ---- networks -------------------------------------------------------------------------------------------------------


def network_description(module: nn.Module) -> Architecture | Structure | None:
    """What one of this package's own networks was built from; None for any other module."""
    if type(module) is Network:
        return module.architecture
    if type(module) is StructureNetwork:
        return module.structure
    return None


def build(architecture: NetworkArchitecture, *, residuals: bool) -> nn.Module:
    """The network of an architecture of any family, with weights of no meaning."""
    if not isinstance(architecture, Architecture | StructureArchitecture):
        return build_network(architecture, residuals=residuals)  # may not be able to build without memory
    with torch.device("meta"):  # no time for weights that are drawn again, and no number from the global generator
        network = build_network(architecture, residuals=residuals)
    return network.to_empty(device="cpu")


def build_video(structure: Structure, *, num_classes: int, residuals: bool) -> nn.Module:
    """The network of a structure for videos, which no family builds, with weights of no meaning."""
    with torch.device("meta"):
        network = StructureNetwork(structure, num_classes=num_classes, residuals=residuals)
    return network.to_empty(device="cpu")


def without_residuals(module: nn.Module) -> nn.Module:
    """A network like this package's own `module`, but without shortcuts and with weights of no meaning."""
    with torch.device("meta"):
        network: nn.Module
        if isinstance(module, Network):
            network = Network(module.architecture, num_classes=module.classifier.linear.out_features, residuals=False)
        else:
            assert isinstance(module, StructureNetwork)
            network = StructureNetwork(
                module.structure,
                num_classes=None if module.classifier is None else module.classifier.out_features,
                use_se=module.use_se,
                residuals=False,
                batch_norm=module.batch_norm,
            )
    return network.to_empty(device="cpu")


def without_classifier(network: nn.Module) -> nn.Module:
    """One of this package's networks without what follows its last feature map, in place; other modules as they are."""
    if isinstance(network, Network):
        network.classifier = nn.Identity()  # type: ignore[assignment]
    elif isinstance(network, StructureNetwork):
        network.pool = network.classifier = None
    return network


@contextmanager
def preserve_state(device_name: str, seed: int) -> Iterator[None]:
    """Run the body with gradients on, and restore the global random state afterwards."""
    device = named_device(device_name)
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # for modules that use random numbers in their forward pass
        with torch.autocast(device.type, enabled=False):
            yield


def private_copy(module: nn.Module) -> nn.Module:
    """A copy without the caller's hooks.

    Raises InputError if the module cannot be copied, or if its weights are computed by hooks or parametrizations, so
    that they cannot be initialised.
    """
    module = getattr(module, "_orig_mod", module)  # the module given to torch.compile
    memo: dict[int, Any] = {}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part) or any(map(_computes_weight, part._forward_pre_hooks.values())):
            raise InputError(
                f"{name} ({type(part).__name__}) uses a parametrization, so its weights cannot be reinitialised: score "
                "the network without it"
            )
        for kind in _HOOKS:
            memo[id(getattr(part, kind))] = OrderedDict()
    try:
        copied = copy.deepcopy(module, memo)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{type(module).__name__} cannot be copied, and must not be changed: {error}") from error
    assert isinstance(copied, nn.Module)
    return copied


def _computes_weight(hook: object) -> bool:
    """Whether a hook is PyTorch's own and computes a weight, such as weight norm's."""
    return type(hook).__module__.startswith("torch.nn.utils.")


def prepared(network: nn.Module, device: str, dtype: str) -> nn.Module:
    """The network on the device and in the precision, with gradients; batch norms in training mode, dropout off."""
    network.to(device=named_device(device), dtype=getattr(torch, dtype))
    network.requires_grad_(True).eval()
    for norm in batch_norms(network):
        norm.train()
        if norm.running_var is None:
            norm.track_running_stats = True
            like = next(network.parameters())
            norm.running_mean = torch.zeros(norm.num_features, device=like.device, dtype=like.dtype)
            norm.running_var = torch.ones(norm.num_features, device=like.device, dtype=like.dtype)
            norm.num_batches_tracked = torch.zeros((), device=like.device, dtype=torch.long)
    return network


def without_batch_norm(network: nn.Module) -> nn.Module:
    """The network with every batch norm replaced by the identity, in place."""
    norms = set(batch_norms(network))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child in norms:
                setattr(module, name, nn.Identity())
    return network
