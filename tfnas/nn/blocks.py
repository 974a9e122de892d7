"""Layers of networks. Attribute names of MBConv blocks are those of the authors' checkpoints, so that these load."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tfnas.core.mbconv_blocks import Block, Conv

BATCH_NORM_EPS = 1e-5  # PyTorch's default
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU, "silu": nn.SiLU}


def activation(name: str) -> nn.Module:
    """The activation that an architecture names: `relu`, or `swish`, which structures call `silu`."""
    return _ACTIVATIONS[name]()


class ConvBN(nn.Module):
    """A convolution without bias, `same` padding, and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        output: Tensor = self.bn(self.conv(features))
        return output


class ConvBNAct(ConvBN):
    """The first stem and the feature mix: convolution, batch norm, activation."""

    def __init__(self, conv: Conv) -> None:
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
        self.act = activation(conv.activation)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        output: Tensor = self.act(super().forward(features))
        return output


class SqueezeExcite(nn.Module):
    """Scales channels by a sigmoid of two 1x1 convolutions of their global mean."""

    def __init__(self, channels: int, se_channels: int, activation_name: str) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, se_channels, 1)
        self.act = activation(activation_name)
        self.conv_expand = nn.Conv2d(se_channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return scale_channels(features, self._gate)

    def _gate(self, squeezed: Tensor) -> Tensor:
        return torch.sigmoid(self.conv_expand(self.act(self.conv_reduce(squeezed))))


def scale_channels(features: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """Features (N, C, ...) times what `gate` makes of their means (N, C, 1, ...)."""
    return features * gate(features.mean(tuple(range(2, features.ndim)), keepdim=True))


class MBConv(nn.Module):
    """An inverted residual block: expansion, depthwise convolution, squeeze-and-excite, projection.

    `drop_connect_rate` is the probability of dropping the block's branch for a sample while training; it acts only
    where there is a residual.
    """

    def __init__(self, block: Block, drop_connect_rate: float = 0.0) -> None:
        super().__init__()
        mid = block.mid_channels
        self.inverted_bottleneck = ConvBN(block.in_channels, mid, 1) if block.expands else None
        self.depth_conv = ConvBN(mid, mid, block.kernel_size, block.stride, groups=mid)
        self.squeeze_excite = SqueezeExcite(mid, block.se_channels, block.activation) if block.se_channels else None
        self.point_linear = ConvBN(mid, block.out_channels, 1)
        self.act = activation(block.activation)
        self.has_residual = block.has_residual
        self.drop_connect = stochastic_depth(drop_connect_rate)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride))."""
        branch = features
        if self.inverted_bottleneck is not None:
            branch = self.act(self.inverted_bottleneck(branch))
        branch = self.act(self.depth_conv(branch))
        if self.squeeze_excite is not None:
            branch = self.squeeze_excite(branch)
        branch = self.point_linear(branch)
        output: Tensor = features + self.drop_connect(branch) if self.has_residual else branch
        return output


class MBConvWeights(NamedTuple):
    """Weights of an MBConv of M channels inside: expansion (M, in, 1, 1), depthwise (M, 1, k, k), projection
    (out, M, 1, 1).

    Squeeze-and-excite is `reduce` (S, M, 1, 1) and `expand` (M, S, 1, 1) with their biases. None: not there.
    """

    expansion: Tensor | None
    depthwise: Tensor
    projection: Tensor
    reduce: Tensor | None = None
    reduce_bias: Tensor | None = None
    expand: Tensor | None = None
    expand_bias: Tensor | None = None


def stochastic_depth(rate: float) -> nn.Module:
    """torchvision's, loaded where it acts: the library takes seconds to load, and searching needs none of it."""
    if rate == 0:
        return nn.Identity()
    from torchvision.ops import StochasticDepth

    layer: nn.Module = StochasticDepth(rate, "row")
    return layer


class Classifier(nn.Module):
    """Global average pool, dropout, linear."""

    def __init__(self, in_features: int, num_classes: int, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout_rate)
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, classes)."""
        logits: Tensor = self.linear(self.dropout(self.pool(features).flatten(1)))
        return logits


def zero_biases(module: nn.Module) -> None:
    """Set every bias to 0 and leave the rest at PyTorch's defaults (the authors' initialisation)."""
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] == "bias":
            nn.init.zeros_(parameter)


def to_rows(maps: Tensor) -> Tensor:
    """A map (N, C, H, W) as rows (N * H * W, C), without a copy where it is channels last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def to_maps(rows: Tensor, images: int, height: int, width: int) -> Tensor:
    """Rows as a channels-last map; `images` -1: as many as there are."""
    return rows.view(images, height, width, rows.shape[1]).permute(0, 3, 1, 2)
