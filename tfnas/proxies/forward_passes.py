"""What scores observe in forward passes: feature maps, logits, inputs of activations, entropies of units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.errors import InputError
from tfnas.core.units import ConvShape
from tfnas.nn.blocks import SqueezeExcite
from tfnas.nn.network import Network
from tfnas.proxies.network_preparation import RandomGenerator, preserve_state
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import Chain
from tfnas.spaces.zen.structure_network import NormedSqueezeExcite, StructureNetwork

_ACTIVATIONS = {"relu": functional.relu, "silu": functional.silu, "swish": functional.silu}
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
"""Activations that pass positive inputs and block negative ones, more or less."""


def feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map before the global pool, (N, channels, [frames,] height, width).

    In other modules than this package's it is found by hooks: the last map before the last adaptive pool or the end.
    Raises InputError if there is none.
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
        raise InputError(f"{type(network).__name__} has no feature map (N, channels, height, width)")
    return latest[0]


def forward_logits(network: nn.Module, images: Tensor, score: str) -> Tensor:
    """Logits (N, classes). Raises InputError if the network returns something else."""
    output = network(images)
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"{score} needs logits (images, classes), and {type(network).__name__} returns {shape}")
    return output


def checked_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """The labels, if they fit the logits (N, classes); InputError says what does not."""
    classes = logits.shape[1]
    fits = labels.shape == logits.shape[:1] and not labels.is_floating_point()
    if not fits or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"labels must be {len(logits)} whole numbers from 0 to {classes - 1}, one per image")
    return labels.long()


@contextmanager
def hook_activations(
    network: nn.Module,
    see: Callable[[Tensor], None],
    kinds: tuple[type[nn.Module], ...] = GATES,
    *,
    score: str,
    squeeze_excite: bool = True,
) -> Iterator[None]:
    """Call `see` with the input (N, ...) of every activation module in the forward passes of the body.

    Those inside squeeze-and-excite of this package's networks can be excluded. Raises InputError if there are none.
    """
    inside: set[nn.Module] = set()
    if not squeeze_excite:
        for module in network.modules():
            if isinstance(module, SqueezeExcite | NormedSqueezeExcite):
                inside.update(module.modules())
    modules = [module for module in network.modules() if isinstance(module, kinds) and module not in inside]
    if not modules:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{score} needs activation modules ({names}), but {type(network).__name__} has none")

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
                f"{score} sums the scales that batch norms remove, but cannot determine that of {name} "
                f"({type(module).__name__})"
            )


def total(output: object) -> Tensor:
    """The sum of all numbers in a tensor, or in a list or tuple of tensors."""
    if isinstance(output, Tensor):
        return output.sum()
    if isinstance(output, list | tuple) and output:
        return torch.stack([total(part) for part in output]).sum()
    raise InputError(f"the network returns a {type(output).__name__}, but a tensor or a list of tensors is needed")


def measured_entropies(chain: Chain, scored: ScoredNetwork, options: ScoreOptions) -> list[float]:
    """Entropies of units measured in a forward pass; `unit_entropy.py` has the expected values in closed form.

    Noise passes through the convolutions with standard normal weights and the activations between them, but without
    shortcuts, batch norms and squeeze-and-excite. Every map is divided by its standard deviation, so that nothing
    overflows, and the logarithms of the deviations are added up. In addition to the fan-in, this includes the effect of
    activations and zero padding. Source: MAE-DET (ICML 2022, arXiv 2111.13336).
    """
    generator = options.random_generator()
    entropies, place = [], 0
    with preserve_state(options.device, options.seed), torch.no_grad():
        features = scored.images(options, generator, given=False)
        for unit in chain.units:
            gained = 0.0
            for number, conv in enumerate(unit.convs):
                features = _convolved(features, conv, generator, place, is_video=chain.is_video)
                scale = features.std()
                gained += float(scale.double().log())
                features = features / scale
                if number < len(unit.convs) - 1 or unit.ends_in_activation:
                    features = _ACTIVATIONS[unit.activation](features)
                place += 1
            entropies.append(gained)
    return entropies


def _convolved(features: Tensor, conv: ConvShape, generator: RandomGenerator, place: int, *, is_video: bool) -> Tensor:
    """The output of a convolution with standard normal weights and no bias."""
    size, time = conv.kernel, conv.temporal_kernel
    shape = (conv.out_channels, conv.in_channels // conv.groups)
    if is_video:
        weight = generator.weight(place, (*shape, time, size, size)).to(features)
        stride, padding = (1, conv.stride, conv.stride), (time // 2, size // 2, size // 2)
        return functional.conv3d(features, weight, None, stride, padding, 1, conv.groups)
    weight = generator.weight(place, (*shape, size, size)).to(features)
    return functional.conv2d(features, weight, None, conv.stride, size // 2, 1, conv.groups)
