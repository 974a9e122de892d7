"""Parameters and MACs as the original programs count them, because their published figures and budgets are those.

They differ from the true counts (`structure_parts.real_counts`, `tfnas.count`). ZenNAS rounds sizes down, counts one
parameter per channel of a batch norm and one for the classifier's bias, adds the operations of batch norms, and divides
those of a shortcut's convolution by the stride twice. TinyNAS divides sizes as real numbers, adds the operations of
batch norms, activations and sums, leaves those of squeeze-and-excite out, and weighs a quantised network by its bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfnas.core.units import ConvShape, Unit
from tfnas.spaces.zen.structure import Structure


@dataclass(frozen=True)
class ReferenceCounts:
    """`params` and `macs` of one image or video; `layers` is what the program's limit on depth counts.

    Of a quantised TinyNAS network: bytes, and multiplications of 8 bits.
    """

    params: float
    macs: float
    layers: int


def reference_counts(
    structure: Structure,
    resolution: int,
    num_classes: int | None = None,
    residuals: bool = True,
    use_se: bool = False,
    frames: int = 1,
) -> ReferenceCounts:
    """What the program that a structure comes from counts at `resolution` pixels a side.

    TinyNAS leaves classifiers out; with `num_classes` one is added as its published tables do.
    """
    if structure.notation == "zennas":
        return _zennas(structure, resolution, num_classes, residuals, use_se)
    units = structure.units(resolution, frames, use_se=use_se)
    params, macs, area = 0.0, 0.0, float(resolution**2)
    for unit in units:
        params += _tinynas_params(unit, residuals)
        macs += _tinynas_macs(unit, residuals) * area
        area /= unit.stride**2
    weights = structure.out_channels * (num_classes or 0)
    layers = sum(len(unit.convs) for unit in units)
    return ReferenceCounts(params + weights + (num_classes or 0), macs * frames + weights, layers)


def _zennas(
    structure: Structure, resolution: int, num_classes: int | None, residuals: bool, use_se: bool
) -> ReferenceCounts:
    params, macs = 0.0, 0.0
    for unit in structure.units(resolution, use_se=use_se, floor=True):
        for conv in unit.convs:
            area = conv.resolution_in**2
            params += conv.num_weights + conv.out_channels
            # In the program's order of divisions, each of which drops the remainder.
            macs += conv.in_channels * conv.out_channels * conv.kernel**2 * area // conv.stride**2 // conv.groups
            macs += conv.out_channels * conv.resolution_out**2
        if unit.squeeze_excite is not None:
            channels, squeezed = unit.squeeze_excite.channels, unit.squeeze_excite.squeezed
            params += 2 * channels * squeezed + 2 * squeezed + 2 * channels
            area = unit.convs[unit.squeeze_excite.after].resolution_out ** 2
            macs += 2 * channels * squeezed + channels + channels * area
        if unit.projection is not None and residuals:
            weights = unit.in_channels * unit.out_channels + unit.out_channels
            params += weights
            macs += weights * (unit.resolution_out / unit.stride) ** 2
    if num_classes is not None:
        params += structure.out_channels * num_classes + 1
        macs += structure.out_channels * num_classes
    return ReferenceCounts(params, macs, sum(block.layers for block in structure.blocks))


def _tinynas_params(unit: Unit, residuals: bool) -> float:
    params = sum(_bit_weighted_params(conv) for conv in unit.convs)
    if unit.squeeze_excite is not None:
        channels, squeezed = unit.squeeze_excite.channels, unit.squeeze_excite.squeezed
        params += 2 * channels * squeezed + 2 * squeezed + 2 * channels
    if unit.projection is not None and residuals:
        params += _bit_weighted_params(unit.projection)
    return params


def _tinynas_macs(unit: Unit, residuals: bool) -> float:
    """Of a unit that receives one pixel."""
    macs, area = 0.0, 1.0
    for conv in unit.convs:
        area /= conv.stride**2
        macs += (_bit_weighted(conv) + 2 * conv.out_channels) * area  # its batch norm too
        macs += conv.out_channels * area  # the activation, or the sum with the shortcut
    if unit.shortcut is not None and residuals:
        macs += unit.in_channels * unit.shortcut.pools
        if unit.projection is not None:
            macs += (_bit_weighted(unit.projection) + 3 * unit.out_channels) * area
    return macs


def _bit_weighted_params(conv: ConvShape) -> float:
    """With its batch norm's, which have 8 bits."""
    return conv.num_weights * (conv.weight_bits or 8) / 8 + 2 * conv.out_channels


def _bit_weighted(conv: ConvShape) -> float:
    if conv.weight_bits is None or conv.activation_bits is None:
        return conv.num_weights
    return conv.num_weights * conv.weight_bits * conv.activation_bits / 64
