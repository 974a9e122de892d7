"""Blocks whose weights stay at maximum width while only their active channels compute and learn (TF-NAS, section 3.4).

While searching, batch norm has no affine parameters and always uses the batch's own statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block, Conv
from tfnas.nn.blocks import BATCH_NORM_EPS, MBConvWeights, activation
from tfnas.supernet.cpu import CpuKernels


def cpu_kernels(device: torch.device) -> type[CpuKernels] | None:
    """The fast path for tensors on this device; None: layers, grouped operations and foreach updates compute.

    The only place outside `cpu/` that knows of it.
    """
    return CpuKernels if use_cpu_kernels(device) else None


def use_cpu_kernels(device: torch.device) -> bool:
    """On a CPU in full precision; a GPU takes longer to start an operator than to carry out most of a search's."""
    return device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def batch_normalize(features: Tensor) -> Tensor:
    """Normalise by the batch's own statistics, without affine parameters.

    A channel of a single value becomes 0, where functional.batch_norm refuses it: the last batch may be one image.
    """
    return torch.batch_norm(features, None, None, None, None, True, 0.0, BATCH_NORM_EPS, torch.backends.cudnn.enabled)


# ---- active slices of parameters -----------------------------------------------------------------------------------


class ActiveSlice(NamedTuple):
    """The entries of a parameter that are in use: those at these indices (int64, sorted) along dimension `dim`."""

    dim: int
    indices: Tensor


def take_active(parameter: Tensor, dim: int, indices: Tensor) -> Tensor:
    """As `index_select`, differentiable. The indices are distinct, so that gradients are copied and not added."""
    if parameter.requires_grad and torch.is_grad_enabled():
        output: Tensor = _TakeActive.apply(parameter, dim, indices)
        return output
    return parameter.index_select(dim, indices)


class _TakeActive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, dim: int, indices: Tensor) -> Tensor:
        ctx.shape, ctx.dim, ctx.indices = parameter.shape, dim, indices
        return parameter.index_select(dim, indices)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.new_zeros(ctx.shape).index_copy_(ctx.dim, ctx.indices, gradient), None, None


_ALIGNMENT = 8  # entries of two bytes


class FusedGather:
    """Entries of several tensors by one operator: they are concatenated, and one index fetches all.

    A GPU takes longer to start an operator than to carry out one of these. `indices` has for every tensor to be made
    the places (int64) of its entries in the concatenation, in its shape, or None. With `fixed` sources there is a zero
    behind the last one; else gradients go to the sources, and no entry may be fetched twice.
    """

    def __init__(self, sources: Sequence[Tensor], indices: Sequence[Tensor | None], *, fixed: bool = False) -> None:
        self.sources, self.fixed = tuple(sources), fixed
        self.number = len(indices)
        present = [(number, places) for number, places in enumerate(indices) if places is not None]
        # Products are fastest where matrices begin at multiples of 16 bytes: those that would move the next go last
        present.sort(key=lambda one: one[1].numel() % _ALIGNMENT != 0)
        self.order = [(number, places.shape) for number, places in present]
        length = sum(source.numel() for source in sources)
        short = fixed and length < torch.iinfo(torch.int32).max  # half the memory; gradients need int64
        index = torch.cat([places.reshape(-1) for _, places in present])
        self.index = index.int() if short else index

    def gather(self, frozen: bool = False) -> list[Tensor | None]:
        """The tensors made; differentiable unless `frozen` or fixed. Under autocast they are of its type."""
        frozen = frozen or self.fixed
        parts = [(source.detach() if frozen else source).reshape(-1) for source in self.sources]
        joined = torch.cat([*parts, parts[0].new_zeros(1)] if self.fixed else parts)
        entries = joined.index_select(0, self.index) if frozen else take_active(joined, 0, self.index)
        device_type = joined.device.type
        if torch.is_autocast_enabled(device_type):
            entries = entries.to(torch.get_autocast_dtype(device_type))  # else every layer casts its own
        made: list[Tensor | None] = [None] * self.number
        pieces = torch.split(entries, [shape.numel() for _, shape in self.order])
        for (number, shape), piece in zip(self.order, pieces, strict=True):
            made[number] = piece.view(shape)
        return made


# ---- layers and operations -----------------------------------------------------------------------------------------


class OperationParameter(NamedTuple):
    """A parameter of an operation, and the dimension along which its channels are active or not (None: used whole)."""

    parameter: Tensor
    dim: int | None


class BiaslessConv(nn.Module):
    """A convolution's weight under the authors' name `<layer>.conv.weight`; its owner decides which entries compute."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, groups=groups, bias=False)

    @property
    def weight(self) -> Tensor:
        """The whole weight, at maximum width."""
        return self.conv.weight


class SearchConv(BiaslessConv):
    """First stem and feature mix while searching: convolution, batch statistics, activation."""

    def __init__(self, conv: Conv) -> None:
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size)
        self.stride = conv.stride
        self.padding = conv.kernel_size // 2
        self.activation = conv.activation
        self.act = activation(conv.activation)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        kernels = cpu_kernels(features.device)
        if kernels is not None:
            return kernels.convolve(features, self.weight, self.stride, self.activation)
        maps = functional.conv2d(features, self.weight, stride=self.stride, padding=self.padding)
        output: Tensor = self.act(batch_normalize(maps))
        return output


class ElasticSqueezeExcite(nn.Module):
    """Weights of squeeze-and-excite at maximum width."""

    def __init__(self, channels: int, se_channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, se_channels, 1)
        self.conv_expand = nn.Conv2d(se_channels, channels, 1)


class ElasticMBConv(nn.Module):
    """An MBConv whose `active` channels (sorted indices below `max_width`) compute; the others rest unchanged.

    The block handed over gives kernel, stride, SE and activation, its current width, and in `mid_range` the maximum.
    Without an expansion the active channels are the input's, one for one. With `low_memory` the backward pass computes
    all maps between input and output again instead of saving them.
    """

    def __init__(self, block: Block, low_memory: bool = False) -> None:
        super().__init__()
        self.block, self.low_memory = block, low_memory
        self.max_width = width = block.mid_range[1]
        self.kernel_size, self.stride, self.padding = block.kernel_size, block.stride, block.kernel_size // 2
        self.has_residual = block.has_residual
        self.act = activation(block.activation)
        self.inverted_bottleneck = BiaslessConv(block.in_channels, width, 1) if block.expands else None
        self.depth_conv = BiaslessConv(width, width, block.kernel_size, groups=width)
        self.squeeze_excite = ElasticSqueezeExcite(width, block.se_channels) if block.se_channels else None
        self.point_linear = BiaslessConv(width, block.out_channels, 1)
        self._gather: tuple[Tensor, FusedGather] | None = None
        self.active: Tensor
        self.register_buffer("active", torch.arange(block.mid_channels), persistent=False)

    @property
    def width(self) -> int:
        """Number of active channels."""
        return self.active.numel()

    def set_active(self, index: Tensor) -> None:
        """Make the channels at these indices (int64, distinct) active. Raises InputError where they do not fit."""
        index = index.to(self.active.device, torch.int64).sort().values
        wrong = index.numel() == 0 or int(index[0]) < 0 or int(index[-1]) >= self.max_width
        if wrong or (index.diff() == 0).any():
            raise InputError(
                f"active channels must be distinct indices below {self.max_width}, got {index.tolist()[:8]}..."
            )
        if self.inverted_bottleneck is None and index.numel() != self.block.in_channels:
            raise InputError(
                "an operation without an expansion must have as many active channels as it has inputs, "
                f"{self.block.in_channels}, got {index.numel()}"
            )
        self.active = index

    def set_width(self, width: int) -> None:
        """Keep the `width` channels whose depthwise kernels have the largest L1 norm (the first ones among equals)."""
        if not 1 <= width <= self.max_width:
            raise InputError(f"the width must be 1 to {self.max_width}, got {width}")
        norms = self.depth_conv.weight.detach().abs().sum((1, 2, 3))
        self.set_active(norms.argsort(descending=True, stable=True)[:width])

    def parts(self) -> list[OperationParameter | None]:
        """Its parameters, in the order of `MBConvWeights`; None where it has none."""
        expansion, excite = self.inverted_bottleneck, self.squeeze_excite
        parts: list[OperationParameter | None] = [
            None if expansion is None else OperationParameter(expansion.weight, 0),
            OperationParameter(self.depth_conv.weight, 0),
            OperationParameter(self.point_linear.weight, 1),
        ]
        if excite is None:
            return [*parts, None, None, None, None]
        reduce_bias, expand_bias = excite.conv_reduce.bias, excite.conv_expand.bias
        assert reduce_bias is not None and expand_bias is not None
        return [
            *parts,
            OperationParameter(excite.conv_reduce.weight, 1),
            OperationParameter(reduce_bias, None),
            OperationParameter(excite.conv_expand.weight, 0),
            OperationParameter(expand_bias, 0),
        ]

    def active_slices(self) -> dict[Tensor, ActiveSlice]:
        """Which entries of which parameters are in use; a parameter that is not named is used whole."""
        if self.width == self.max_width:
            return {}
        return {
            part.parameter: ActiveSlice(part.dim, self.active)
            for part in self.parts()
            if part is not None and part.dim is not None
        }

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        kernels = cpu_kernels(features.device)
        if kernels is not None:
            branch = kernels.mbconv(self, features)
        else:
            needs_grad = features.requires_grad or self.depth_conv.weight.requires_grad
            branch = self._save_or_recompute(self._plain, features, needs_grad=needs_grad)
        return features + branch if self.has_residual else branch

    def weighted(self, features: Tensor, weight: Tensor) -> Tensor:
        """The same times a weight (a scalar); gradients go to it and to the features, not to the operation's own."""
        # a network's first choices have fixed features: their outputs are saved, which is less than all else
        return self._save_or_recompute(self._weighted, features, weight, needs_grad=features.requires_grad)

    def _save_or_recompute(self, compute: Callable[..., Tensor], *inputs: Tensor, needs_grad: bool) -> Tensor:
        if self.low_memory and needs_grad and torch.is_grad_enabled():
            output: Tensor = checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
            return output
        return compute(*inputs)

    def _plain(self, features: Tensor) -> Tensor:
        # evaluation changes widths all the time, and uses them once
        return self._layers(features, self._gathered() if torch.is_grad_enabled() else self.active_weights())

    def _weighted(self, features: Tensor, weight: Tensor) -> Tensor:
        branch = self._layers(features, self._gathered(frozen=True))
        return weight * (features + branch if self.has_residual else branch)

    def active_weights(self, frozen: bool = False) -> MBConvWeights:
        """Those of the active channels; `frozen`: without gradients."""

        def active(part: OperationParameter) -> Tensor:
            parameter = part.parameter.detach() if frozen else part.parameter
            if part.dim is None or self.width == self.max_width:
                return parameter
            return take_active(parameter, part.dim, self.active)

        return MBConvWeights._make(None if part is None else active(part) for part in self.parts())

    def active_indices(self, start: int = 0) -> MBConvWeights:
        """As `active_weights`, but each entry's index (int64) in all of its parameters, concatenated at `start`."""
        indices: list[Tensor | None] = []
        for part in self.parts():
            if part is None:
                indices.append(None)
                continue
            parameter, dim = part
            everywhere = torch.arange(start, start + parameter.numel(), device=parameter.device).view(parameter.shape)
            indices.append(everywhere if dim is None else everywhere.index_select(dim, self.active))
            start += parameter.numel()
        return MBConvWeights._make(indices)

    def _gathered(self, frozen: bool = False) -> MBConvWeights:
        """As `active_weights`, by as few operators as can be."""
        if self._gather is None or self._gather[0] is not self.active:  # which is another one on another device, too
            sources = [part.parameter for part in self.parts() if part is not None]
            self._gather = self.active, FusedGather(sources, self.active_indices())
        return MBConvWeights._make(self._gather[1].gather(frozen))

    def _layers(self, features: Tensor, weights: MBConvWeights) -> Tensor:
        """The branch, layer by layer."""
        branch = features
        if weights.expansion is not None:
            branch = self.act(batch_normalize(functional.conv2d(branch, weights.expansion)))
        kernel, groups = weights.depthwise, self.width
        branch = functional.conv2d(branch, kernel, stride=self.stride, padding=self.padding, groups=groups)
        branch = self.act(batch_normalize(branch))
        if weights.reduce is not None and weights.expand is not None:
            squeezed = branch.mean((2, 3), keepdim=True)
            reduced = self.act(functional.conv2d(squeezed, weights.reduce, weights.reduce_bias))
            branch = branch * torch.sigmoid(functional.conv2d(reduced, weights.expand, weights.expand_bias))
        return batch_normalize(functional.conv2d(branch, weights.projection))
