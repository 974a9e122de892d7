"""Parameters and multiply-accumulates in closed form: no module is built, and torch is not imported.

One multiply-accumulate is one MAC. Convolutions and linear layers count, one more per bias element and output
position, and the additions of the last pool (one per input element); the means inside squeeze-and-excite, the pools and
sums of shortcuts, batch norms and activations do not. `tfnas.nn.counting` finds the same by walking through a module.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tfnas.core.units import ConvShape, Unit


@dataclass(frozen=True)
class Counts:
    """`params` and `macs` of one image."""

    params: int
    macs: int


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
