"""What a structure costs, part by part: true parameters and MACs in closed form (`tfnas.core.units`)."""

from __future__ import annotations

from collections.abc import Iterator

from tfnas.core.family import CostPart
from tfnas.core.units import Counts, Unit, classifier_counts, sum_counts, unit_counts
from tfnas.spaces.zen.structure import Structure


def structure_parts(
    structure: Structure,
    resolution: int,
    num_classes: int | None = None,
    residuals: bool = True,
    use_se: bool = False,
    frames: int = 1,
) -> tuple[CostPart, ...]:
    """The units of a structure for images of `resolution` pixels a side, or for videos, and its classifier, if any."""
    return tuple(_parts(structure, resolution, num_classes, residuals, use_se, frames))


def _parts(
    structure: Structure, resolution: int, num_classes: int | None, residuals: bool, use_se: bool, frames: int
) -> Iterator[CostPart]:
    units = structure.units(resolution, frames, use_se=use_se)
    known: dict[int, Counts] = {}  # equal units of a block share their convolutions and need to be counted once
    for unit in units:
        if id(unit.convs) not in known:
            known[id(unit.convs)] = unit_counts(unit, residuals)
        yield CostPart(
            f"blocks.{unit.block}.{unit.position}",
            unit_key(unit, structure.notation),
            unit.convs[0].out_channels,
            known[id(unit.convs)],
            unit.in_channels,
            unit.out_channels,
            unit.resolution_in,
        )
    if num_classes is not None:
        channels, last = structure.out_channels, units[-1]
        counts = classifier_counts(channels, num_classes, last.convs[-1].positions)
        key = f"Classifier_{last.resolution_out}_{channels}"
        yield CostPart("classifier", key, num_classes, counts, channels, num_classes, last.resolution_out)


def unit_key(unit: Unit, notation: str) -> str:
    """A name that says all the cost of a unit depends on but its width, that of its first convolution."""
    squeeze = 0 if unit.squeeze_excite is None else unit.squeeze_excite.squeezed
    kernel = max(unit.convs, key=lambda conv: conv.kernel * conv.temporal_kernel)
    name = (
        f"{notation}_{unit.block_type}_{unit.resolution_in}_{unit.in_channels}_{squeeze}_{unit.out_channels}"
        f"_k{kernel.kernel}_s{unit.stride}_{unit.activation}"
    )
    if kernel.temporal_kernel > 1 or kernel.frames > 1:
        name += f"_t{kernel.temporal_kernel}x{kernel.frames}"
    if unit.convs[0].groups > 1 and not unit.convs[0].depthwise:
        name += f"_g{unit.convs[0].groups}"
    return f"{name}_projected" if unit.projection is not None else name


def real_counts(
    structure: Structure,
    resolution: int,
    num_classes: int | None = None,
    residuals: bool = True,
    use_se: bool = False,
    frames: int = 1,
) -> Counts:
    """Counts for one image of `resolution` pixels a side, or for one video; without classes, up to the last map."""
    parts = structure_parts(structure, resolution, num_classes, residuals, use_se, frames)
    return sum_counts(part.counts for part in parts)
