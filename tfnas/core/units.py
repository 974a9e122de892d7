"""Units and convolutions of a network of any family, with sizes: what scores, counts, costs and modules are made from.

Parameters and multiply-accumulates are in closed form. One multiply-accumulate is one MAC. Convolutions and linear
layers count, one more per bias element and output position, and the additions of the last pool (one per input element);
the means inside squeeze-and-excite, the pools and sums of shortcuts, batch norms and activations do not.
`tfnas.nn.counting` finds the same by walking through a module.

`peak_activations` is what the largest step holds when operations run one after the other, in the order of the modules,
and a tensor is dropped after its last use; a shortcut keeps a unit's input until it has been read. Batch norms,
activations, scaling, sums and views write over an input that nothing else needs, as runtimes have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PLAIN = "conv"
"""The block type of units that are no residual ones: stems, and convolutions alone."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class ConvShape:
    """A convolution; sizes are pixels a side. `temporal_kernel` and `frames` are 1 for images.

    `norm` says whether batch norm follows.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    groups: int
    resolution_in: int
    resolution_out: int
    temporal_kernel: int = 1
    frames: int = 1
    bias: bool = False
    norm: bool = True
    weight_bits: int | None = None
    activation_bits: int | None = None

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return self.groups == self.in_channels == self.out_channels

    @property
    def num_weights(self) -> int:
        """Entries of its weight, without the bias."""
        return self.in_channels * self.out_channels * self.kernel**2 * self.temporal_kernel // self.groups

    @property
    def positions(self) -> int:
        """Pixels of its output, of all frames."""
        return self.frames * self.resolution_out**2


@dataclass(frozen=True)
class SqueezeExciteShape:
    """Squeeze-and-excite on `channels` channels, with `squeezed` in between, after convolution number `after`.

    Its two 1x1 convolutions have biases, or else batch norms.
    """

    after: int
    channels: int
    squeezed: int
    bias: bool = False

    @property
    def convs(self) -> tuple[ConvShape, ConvShape]:
        """Its convolutions, of a single pixel."""
        narrow = ConvShape(self.channels, self.squeezed, 1, 1, 1, 1, 1, bias=self.bias, norm=not self.bias)
        return narrow, ConvShape(self.squeezed, self.channels, 1, 1, 1, 1, 1, bias=self.bias, norm=not self.bias)


@dataclass(frozen=True)
class Shortcut:
    """What a unit's shortcut does to the unit's input; nothing at all where it neither pools nor projects."""

    pools: bool
    """Whether it begins with an average pool over stride x stride pixels."""
    projection: ConvShape | None
    """Its 1x1 convolution, which batch norm follows."""


@dataclass(frozen=True)
class Unit:
    """Convolutions with a shortcut around them. `block` and `stage` count from 0, `position` within the block too."""

    block: int
    stage: int
    position: int
    block_type: str
    activation: str
    convs: tuple[ConvShape, ...]
    squeeze_excite: SqueezeExciteShape | None
    shortcut: Shortcut | None
    """The shortcut; none where the unit has none."""
    ends_in_activation: bool = True
    """Whether an activation follows the last convolution too, not only the others."""

    @property
    def projection(self) -> ConvShape | None:
        """The shortcut's convolution, where it has one."""
        return None if self.shortcut is None else self.shortcut.projection

    @property
    def in_channels(self) -> int:
        """Channels of its input."""
        return self.convs[0].in_channels

    @property
    def out_channels(self) -> int:
        """Channels of its output."""
        return self.convs[-1].out_channels

    @property
    def stride(self) -> int:
        """Stride of the unit."""
        return max(conv.stride for conv in self.convs)

    @property
    def resolution_in(self) -> int:
        """Pixels a side of its input."""
        return self.convs[0].resolution_in

    @property
    def resolution_out(self) -> int:
        """Pixels a side of its output."""
        return self.convs[-1].resolution_out


@dataclass(frozen=True)
class StageEnd:
    """What lies before the end of a stage: `num_units` and `num_convs` from the network's beginning on.

    `channels` and `resolution` (pixels a side) are those of its last feature map, `last_block` counts from 0.
    """

    last_block: int
    num_units: int
    num_convs: int
    channels: int
    resolution: int


def stage_ends(units: tuple[Unit, ...]) -> tuple[StageEnd, ...]:
    """The stages that units make up."""
    stages, num_convs = [], 0
    for number, unit in enumerate(units, 1):
        num_convs += len(unit.convs)
        if number == len(units) or units[number].stage != unit.stage:
            stages.append(StageEnd(unit.block, number, num_convs, unit.out_channels, unit.resolution_out))
    return tuple(stages)


@dataclass(frozen=True)
class Counts:
    """`params` and `macs` of one image."""

    params: int
    macs: int


@dataclass(frozen=True)
class CostPart:
    """One part of a network, as costs are added up.

    `name` is that of its module in the network, `key` all that its cost depends on but its `width` (a number of
    channels; of the classifier the classes). `counts` are of one image, `input_size` is in pixels a side.
    """

    name: str
    key: str
    width: int
    counts: Counts
    in_channels: int
    out_channels: int
    input_size: int


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """The sum over parts."""
    parts = tuple(counts)
    return Counts(sum(part.params for part in parts), sum(part.macs for part in parts))


def conv_counts(conv: ConvShape) -> Counts:
    """Of a convolution with the bias and the batch norm that it has."""
    bias, norm = conv.out_channels * conv.bias, 2 * conv.out_channels * conv.norm
    return Counts(conv.num_weights + bias + norm, (conv.num_weights + bias) * conv.positions)


def unit_counts(unit: Unit, residuals: bool = True) -> Counts:
    """Of a unit: its convolutions, those of squeeze-and-excite, and with `residuals` the shortcut's."""
    convs = [*unit.convs]
    if unit.squeeze_excite is not None:
        convs += unit.squeeze_excite.convs
    if unit.projection is not None and residuals:
        convs.append(unit.projection)
    return sum_counts(conv_counts(conv) for conv in convs)


def classifier_counts(channels: int, num_classes: int, positions: int) -> Counts:
    """Of the global pool over so many positions of the last feature map, and the linear layer behind it."""
    weights = (channels + 1) * num_classes
    return Counts(weights, weights + channels * positions)


def peak_activations(units: Iterable[Unit], num_classes: int | None = None) -> int:
    """The largest number of activations that are live at once, the image's included, for one image or video.

    With `num_classes` a global pool and a linear layer follow the last unit.
    """
    peak, last = 0, None
    for last in units:
        peak = max(peak, unit_peak_activations(last))
    if num_classes is not None and last is not None:
        peak = max(peak, classifier_peak_activations(last.out_channels, num_classes, last.convs[-1].positions))
    return peak


def unit_peak_activations(unit: Unit) -> int:
    """Of a unit, its input included."""
    given = unit.in_channels * unit.convs[0].frames * unit.resolution_in**2
    waiting, feature, peak = 0, given, 0
    for number, conv in enumerate(unit.convs):
        output = conv.out_channels * conv.positions
        peak = max(peak, waiting + feature + output)
        waiting, feature = given if unit.shortcut is not None else 0, output
        if unit.squeeze_excite is not None and unit.squeeze_excite.after == number:
            peak = max(peak, waiting + feature + unit.squeeze_excite.channels + unit.squeeze_excite.squeezed)
    if unit.shortcut is not None and unit.shortcut.pools:
        pooled = unit.in_channels * unit.convs[-1].positions
        given, peak = pooled, max(peak, given + feature + pooled)
    if unit.projection is not None:
        peak = max(peak, given + feature + unit.projection.out_channels * unit.projection.positions)
    return peak


def classifier_peak_activations(channels: int, num_classes: int, positions: int) -> int:
    """Of the global pool over so many positions of the last feature map, and the linear layer behind it."""
    return channels + max(channels * positions, num_classes)
