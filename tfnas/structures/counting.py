"""True parameters and MACs of a structure in closed form: no module is built, and torch is not imported.

What counts is said in `tfnas.nn.counting`, which finds the same by walking through a network of images: one MAC per
multiply-accumulate of convolutions and linear layers, one more per bias and output position, and the additions of the
last pool where there is a classifier. The average pools and sums of shortcuts, batch norms and activations do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.counts import Counts
from tfnas.structures.units import Conv, Unit

if TYPE_CHECKING:
    from tfnas.structures.structure import Structure


def real_counts(
    structure: Structure,
    resolution: int,
    num_classes: int | None = None,
    residuals: bool = True,
    use_se: bool = False,
    frames: int = 1,
) -> Counts:
    """Counts for one image of `resolution` pixels a side, or for one video; without classes, up to the last map."""
    units = structure.units(resolution, frames, use_se=use_se)
    shared: dict[int, Counts] = {}  # equal units of a block share their convolutions and need to be counted once
    params = macs = 0
    for unit in units:
        if id(unit.convs) not in shared:
            shared[id(unit.convs)] = _unit_counts(unit, residuals)
        params += shared[id(unit.convs)].params
        macs += shared[id(unit.convs)].macs
    if num_classes is not None:
        weights = (structure.out_channels + 1) * num_classes
        params += weights
        macs += weights + structure.out_channels * units[-1].convs[-1].positions
    return Counts(params, macs)


def _unit_counts(unit: Unit, residuals: bool) -> Counts:
    convs = [*unit.convs, *([unit.projection] if unit.projection is not None and residuals else [])]
    params, macs = sum(_params(conv) for conv in convs), sum(_macs(conv) for conv in convs)
    if unit.squeeze_excite is not None:
        channels, squeezed = unit.squeeze_excite.channels, unit.squeeze_excite.squeezed
        params += 2 * channels * squeezed + 2 * squeezed + 2 * channels
        macs += 2 * channels * squeezed
    return Counts(params, macs)


def _params(conv: Conv) -> int:
    """With the batch norm that follows every convolution."""
    return conv.num_weights + conv.out_channels * (2 + conv.bias)


def _macs(conv: Conv) -> int:
    return (conv.num_weights + conv.out_channels * conv.bias) * conv.positions
