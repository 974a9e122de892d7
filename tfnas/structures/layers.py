"""The layers of a structure's network: one unit for all families, in two and three dimensions."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from tfnas.structures.units import Bypass, Conv, SqueezeExcite, Unit

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


@dataclass(frozen=True)
class Maker:
    """Makes layers of 2 or 3 dimensions, with batch norms of one epsilon, or without them."""

    dimensions: int
    epsilon: float
    batch_norm: bool

    def conv(self, conv: Conv) -> nn.Module:
        """A convolution with `same` padding."""
        if self.dimensions == 2:
            return nn.Conv2d(
                conv.in_channels,
                conv.out_channels,
                conv.kernel,
                conv.stride,
                conv.kernel // 2,
                groups=conv.groups,
                bias=conv.bias,
            )
        time, size = conv.temporal_kernel, conv.kernel
        return nn.Conv3d(
            conv.in_channels,
            conv.out_channels,
            (time, size, size),
            (1, conv.stride, conv.stride),
            (time // 2, size // 2, size // 2),
            groups=conv.groups,
            bias=conv.bias,
        )

    def norm(self, channels: int) -> nn.Module | None:
        """A batch norm, or none."""
        if not self.batch_norm:
            return None
        kind = nn.BatchNorm2d if self.dimensions == 2 else nn.BatchNorm3d
        return kind(channels, eps=self.epsilon)

    def shrink(self, stride: int) -> nn.Module:
        """An average pool in space; odd sizes are rounded up, as the convolutions beside it do."""
        if self.dimensions == 2:
            return nn.AvgPool2d(stride, stride, ceil_mode=True)
        return nn.AvgPool3d((1, stride, stride), ceil_mode=True)

    def global_pool(self) -> nn.Module:
        """The mean of a feature map."""
        return nn.AdaptiveAvgPool2d(1) if self.dimensions == 2 else nn.AdaptiveAvgPool3d(1)


class SqueezeExcitation(nn.Module):
    """Scales channels by a sigmoid of two 1x1 convolutions, with batch norms, of their global mean."""

    def __init__(self, squeeze: SqueezeExcite, activation: str, maker: Maker) -> None:
        super().__init__()
        narrow = Conv(squeeze.channels, squeeze.squeezed, 1, 1, 1, 1, 1)
        wide = Conv(squeeze.squeezed, squeeze.channels, 1, 1, 1, 1, 1)
        self.gate = _sequence(
            conv1=maker.conv(narrow),
            norm1=maker.norm(squeeze.squeezed),
            act1=_ACTIVATIONS[activation](),
            conv2=maker.conv(wide),
            norm2=maker.norm(squeeze.channels),
            sigmoid=nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        gate: Tensor = self.gate(features.mean(tuple(range(2, features.ndim)), keepdim=True))
        return features * gate


class ResidualUnit(nn.Module):
    """Convolutions with batch norms and activations between them, a shortcut around them, an activation at the end."""

    def __init__(self, unit: Unit, maker: Maker, *, residuals: bool) -> None:
        super().__init__()
        layers: dict[str, nn.Module | None] = {}
        for number, conv in enumerate(unit.convs, 1):
            layers[f"conv{number}"] = maker.conv(conv)
            layers[f"norm{number}"] = maker.norm(conv.out_channels)
            if number < len(unit.convs):
                layers[f"act{number}"] = _ACTIVATIONS[unit.activation]()
            if unit.squeeze_excite is not None and unit.squeeze_excite.after == number - 1:
                layers["squeeze_excite"] = SqueezeExcitation(unit.squeeze_excite, unit.activation, maker)
        self.body = _sequence(**layers)
        self.shortcut = _shortcut(unit.bypass, unit, maker) if unit.bypass is not None and residuals else None
        self.act = _ACTIVATIONS[unit.activation]()

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, ..., H, W) to (N, out, ..., ceil(H / stride), ceil(W / stride))."""
        branch = self.body(features)
        if self.shortcut is not None:
            branch = branch + self.shortcut(features)
        output: Tensor = self.act(branch)
        return output


def _shortcut(bypass: Bypass, unit: Unit, maker: Maker) -> nn.Sequential:
    projection = bypass.projection
    return _sequence(
        pool=maker.shrink(unit.stride) if bypass.pools else None,
        conv=None if projection is None else maker.conv(projection),
        norm=None if projection is None else maker.norm(projection.out_channels),
    )


def _sequence(**layers: nn.Module | None) -> nn.Sequential:
    """The layers that there are, in order, under their names."""
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))
