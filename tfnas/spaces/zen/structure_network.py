"""The network that a structure describes, in two and three dimensions, with one kind of unit for all block types.

Weights as the original programs publish them load too: ZenNAS wraps every layer in a `netblock` and numbers the layers
of a unit, activations included; TinyNAS names them by their place. Both save BatchNorm's entries under PyTorch's names.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.core.units import ConvShape, Shortcut, SqueezeExciteShape, Unit
from tfnas.nn.blocks import activation, scale_channels, stochastic_depth
from tfnas.nn.weights import find_state, load_state, why_missing
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.super_block import BATCH_NORM_EPSILON
from tfnas.utils.tensor_file import load_plain


@dataclass(frozen=True)
class Maker:
    """Makes layers of 2 or 3 dimensions, with batch norms of one epsilon, or without them."""

    dimensions: int
    epsilon: float
    batch_norm: bool

    def conv(self, conv: ConvShape) -> nn.Module:
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


class NormedSqueezeExcite(nn.Module):
    """Scales channels by a sigmoid of two 1x1 convolutions, with batch norms, of their global mean."""

    def __init__(self, squeeze: SqueezeExciteShape, act: str, maker: Maker) -> None:
        super().__init__()
        narrow, wide = squeeze.convs
        self.gate = _sequence(
            conv1=maker.conv(narrow),
            norm1=maker.norm(squeeze.squeezed),
            act1=activation(act),
            conv2=maker.conv(wide),
            norm2=maker.norm(squeeze.channels),
            sigmoid=nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        return scale_channels(features, self.gate)


class ResidualUnit(nn.Module):
    """Convolutions with batch norms and activations between them, a shortcut around them, an activation at the end."""

    def __init__(self, unit: Unit, maker: Maker, *, residuals: bool, drop_connect_rate: float = 0.0) -> None:
        super().__init__()
        layers: dict[str, nn.Module | None] = {}
        for number, conv in enumerate(unit.convs, 1):
            layers[f"conv{number}"] = maker.conv(conv)
            layers[f"norm{number}"] = maker.norm(conv.out_channels)
            if number < len(unit.convs):
                layers[f"act{number}"] = activation(unit.activation)
            if unit.squeeze_excite is not None and unit.squeeze_excite.after == number - 1:
                layers["squeeze_excite"] = NormedSqueezeExcite(unit.squeeze_excite, unit.activation, maker)
        self.body = _sequence(**layers)
        self.shortcut = _shortcut(unit.shortcut, unit, maker) if unit.shortcut is not None and residuals else None
        self.drop_connect = stochastic_depth(drop_connect_rate)
        self.act = activation(unit.activation)

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, ..., H, W) to (N, out, ..., ceil(H / stride), ceil(W / stride))."""
        branch = self.body(features)
        if self.shortcut is not None:
            branch = self.drop_connect(branch) + self.shortcut(features)
        output: Tensor = self.act(branch)
        return output


def _shortcut(shortcut: Shortcut, unit: Unit, maker: Maker) -> nn.Sequential:
    projection = shortcut.projection
    return _sequence(
        pool=maker.shrink(unit.stride) if shortcut.pools else None,
        conv=None if projection is None else maker.conv(projection),
        norm=None if projection is None else maker.norm(projection.out_channels),
    )


def _sequence(**layers: nn.Module | None) -> nn.Sequential:
    """The layers that there are, in order, under their names."""
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if layer is not None))


class StructureNetwork(nn.Module):
    """A structure as a module: images (N, C, H, W), or videos (N, C, T, H, W), to logits or to a feature map.

    Without `num_classes` there is no classifier, and `forward` returns the last feature map. `use_se` adds
    squeeze-and-excite to notation zennas; in tinynas the classes of its blocks say whether it is there. Without
    `residuals` every shortcut is left out, without `batch_norm` every batch norm. Bits are not simulated: it computes
    in floats. `dropout_rate` acts before the classifier, `drop_connect_rate` on the branch of the last unit, growing
    linearly up to it, where there is a shortcut. Modules are in the order in which they are computed.

    Source: ZenNAS and TinyNAS; equal to their networks' outputs to double precision.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        num_classes: int | None = None,
        use_se: bool = False,
        residuals: bool = True,
        batch_norm: bool = True,
        dropout_rate: float = 0.0,
        drop_connect_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes must be 1 or more, or None for feature maps, got {num_classes}")
        self.structure = structure
        self.use_se, self.residuals, self.batch_norm = use_se, residuals, batch_norm
        maker = Maker(3 if structure.is_video else 2, BATCH_NORM_EPSILON[structure.notation], batch_norm)
        units = structure.units(structure.total_stride, use_se=use_se)  # of any size: layers have none
        self.blocks = nn.ModuleList()
        made: list[list[ResidualUnit]] = [[] for _ in structure.blocks]
        for number, unit in enumerate(units, 1):
            rate = drop_connect_rate * number / len(units)
            made[unit.block].append(ResidualUnit(unit, maker, residuals=residuals, drop_connect_rate=rate))
        self.blocks.extend(nn.Sequential(*inside) for inside in made)
        self._last_blocks = tuple(stage.last_block for stage in structure.stages(structure.total_stride))
        self.pool = None if num_classes is None else maker.global_pool()
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = None if num_classes is None else nn.Linear(structure.out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes), or without classes the last feature map."""
        features = self.features(images)
        if self.pool is None or self.classifier is None:
            return features
        logits: Tensor = self.classifier(self.dropout(self.pool(features).flatten(1)))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, (N, C, ..., h, w), before pooling."""
        for block in self.blocks:
            images = block(images)
        return images

    def stage_features(self, images: Tensor) -> list[Tensor]:
        """The last feature map of every stage; a stage ends before each block with a stride."""
        maps = []
        for number, block in enumerate(self.blocks):
            images = block(images)
            if number in self._last_blocks:
                maps.append(images)
        return maps

    def load_published(self, source: str | os.PathLike[str] | Mapping[str, Tensor]) -> None:
        """Take the weights that the original program published, from its file or its state dict; see `published`.

        Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
        """

        load_published(self, source)


_ZENNAS_SQUEEZE = {"conv1": "1", "norm1": "2", "conv2": "4", "norm2": "5"}
_QUANTIZER = ("weightq", "alpha", "scalar", "s")  # what TinyNAS's quantised convolutions save beside their weights


def published_names(network: StructureNetwork) -> dict[str, str]:
    """The published name of every entry of the network's state dict.

    Raises InputError for a network without batch norms: no weights of such are published.
    """
    if not network.batch_norm:
        raise InputError("no weights are published for networks without batch norms")
    modules = dict(_modules(network))
    names = {}
    for name in network.state_dict():
        module, _, entry = name.rpartition(".")
        names[name] = f"{modules[module]}.{entry}"
    return names


def load_published(network: StructureNetwork, source: str | os.PathLike[str] | Mapping[str, Tensor]) -> None:
    """Give a network published weights: a file as `load_weights` takes it, or what such a file holds.

    A classifier is left out where the network has none, and so are the numbers that quantise, because the network
    computes in floats.

    Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
    """
    document = source if isinstance(source, Mapping) else load_plain(Path(source))
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    found = find_state(document, where)
    names = published_names(network)
    for own, name in names.items():
        if name not in found:
            refusal = f"{where} contains the weights of another structure: it has no {name} (here {own})"
            raise InputError(refusal + why_missing(found, names.values()))
    ours = {name: own for own, name in names.items()}
    state = {ours.get(name, name): value for name, value in found.items() if not _left_out(name, network)}
    load_state(network, state, where)


def _left_out(name: str, network: StructureNetwork) -> bool:
    if network.classifier is None and name.startswith("fc_linear."):
        return True
    quantized = any(block.quantized for block in network.structure.blocks)
    return quantized and name.rpartition(".")[2] in _QUANTIZER


def _modules(network: StructureNetwork) -> Iterator[tuple[str, str]]:
    """Our name and the published name of every module that has weights."""
    unit_modules = _zennas_unit if network.structure.notation == "zennas" else _tinynas_unit
    for block_number, (block, written) in enumerate(zip(network.blocks, network.structure.blocks, strict=True)):
        assert isinstance(block, nn.Sequential)
        for number, unit in enumerate(block):
            assert isinstance(unit, ResidualUnit)
            for ours, theirs in unit_modules(unit, block_number, number, written.block_type == "conv"):
                yield f"blocks.{block_number}.{number}.{ours}", theirs
    yield "classifier", "fc_linear.netblock" if network.structure.notation == "zennas" else "fc_linear"


def _zennas_unit(unit: ResidualUnit, block: int, number: int, is_conv: bool) -> Iterator[tuple[str, str]]:
    layers = [name for name, _ in unit.body.named_children()]
    # A plain block is one list of layers; in the others a unit and the activation after it are two items of a list.
    outer = f"module_list.{block}" if is_conv else f"module_list.{block}.module_list.{2 * number}"
    first = number * (len(layers) + 1) if is_conv else 0
    for place, name in enumerate(layers, first):
        theirs = f"{outer}.module_list.{place}.netblock"
        if name == "squeeze_excite":
            yield from ((f"body.{name}.gate.{layer}", f"{theirs}.{key}") for layer, key in _ZENNAS_SQUEEZE.items())
        else:
            yield f"body.{name}", theirs
    yield "shortcut.conv", f"{outer}.proj.0"
    yield "shortcut.norm", f"{outer}.proj.1"


def _tinynas_unit(unit: ResidualUnit, block: int, number: int, is_conv: bool) -> Iterator[tuple[str, str]]:
    if is_conv:
        yield "body.conv1", f"block_list.{block}.conv1"
        yield "body.norm1", f"block_list.{block}.bn1"
        return
    outer = f"block_list.{block}.block_list.{number}"
    for place in range(1, len(unit.body) + 1):
        yield f"body.conv{place}", f"{outer}.conv{place}.conv1"
        yield f"body.norm{place}", f"{outer}.conv{place}.bn1"
    for place in (1, 2):
        yield f"body.squeeze_excite.gate.conv{place}", f"{outer}.se2.conv{place}.conv1"
        yield f"body.squeeze_excite.gate.norm{place}", f"{outer}.se2.conv{place}.bn1"
    yield "shortcut.conv", f"{outer}.residual_proj.conv1"
    yield "shortcut.norm", f"{outer}.residual_proj.bn1"
