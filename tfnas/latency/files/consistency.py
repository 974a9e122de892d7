"""Whether the parts of a table that was read go together; the reader has checked each by itself."""

from __future__ import annotations

import numpy as np

from tfnas.errors import InputError
from tfnas.json_text import short
from tfnas.latency.contents import ANY_DEVICE, TableContents
from tfnas.latency.files.fields import MOST_MS


def check_consistency(contents: TableContents) -> None:
    """Raise InputError naming what contradicts what."""
    _check_counted(contents)
    _check_number_of_classes(contents)
    _check_held_out(contents)
    _check_numbers_of_points(contents)
    _check_correction(contents)


def _check_counted(contents: TableContents) -> None:
    """What was counted holds for any device and in whole numbers, and is not corrected; what was measured has one."""
    counted = contents.cost != "ms"
    assert contents.measurement is not None and contents.classifier is not None
    if counted != (contents.measurement.device_kind == ANY_DEVICE):
        raise InputError(
            f"device_kind is {contents.measurement.device_kind!r}, but cost is {contents.cost!r}: only what is counted "
            f"holds for {ANY_DEVICE!r} device"
        )
    if counted and contents.correction is not None:
        raise InputError(f"correction: there is nothing to correct where cost is {contents.cost!r}")
    numbers: dict[str, tuple[float, ...]] = {f"base.{name}.ms": (part.ms,) for name, part in contents.base.items()}
    curves = {"classifier": contents.classifier.curve}
    curves.update((f"blocks.{key}", curve) for key, curve in contents.curves.items())
    numbers.update((f"{name}.ms", curve.ms) for name, curve in curves.items())
    for name, values in numbers.items() if counted else ():
        if not all(value.is_integer() for value in values):
            raise InputError(f"{name} must be whole numbers where cost is {contents.cost!r}, got {values!s:.60}")


def _check_number_of_classes(contents: TableContents) -> None:
    """The networks that stand for the space must have as many classes as the classifier was measured for."""
    assert contents.measurement is not None and contents.classifier is not None
    counts, wanted = contents.classifier.curve.widths, contents.measurement.num_classes
    if not counts[0] <= wanted <= counts[-1]:
        raise InputError(f"num_classes is {short(wanted)}, but classifier.widths go from {counts[0]} to {counts[-1]}")


def _check_held_out(contents: TableContents) -> None:
    """Points that were measured besides must lie where the table interpolates."""
    for key, curve in contents.held_out.items():
        known = contents.curves.get(key)
        if known is None:
            raise InputError(f"held_out.{key} is not among the blocks")
        if not known.widths[0] <= curve.widths[0] <= curve.widths[-1] <= known.widths[-1]:
            raise InputError(
                f"held_out.{key}.widths must lie within those of the block, {known.widths[0]} to {known.widths[-1]}"
            )


def _check_numbers_of_points(contents: TableContents) -> None:
    """The report of the build must count the points that are there."""
    if contents.build is None:
        return
    counted = {"points": contents.curves, "held_out_points": contents.held_out}
    for name, curves in counted.items():
        said, found = getattr(contents.build, name), sum(len(curve.widths) for curve in curves.values())
        if said != found:
            raise InputError(f"build.{name} is {short(said)}, but the table holds {found}")


def _check_correction(contents: TableContents) -> None:
    """A correction must leave every lookup above zero."""
    correction, classifier = contents.correction, contents.classifier
    if correction is None:
        return
    assert classifier is not None
    least_base_ms = sum(part.ms for part in contents.base.values()) + min(classifier.curve.ms)
    base_ms = correction.scale * least_base_ms + correction.offset_ms
    if not 0 < base_ms <= MOST_MS:
        raise InputError(f"correction makes stem and head take {base_ms:.4g} ms, a fault of the file")
    for key, curve in contents.curves.items():
        ends_ms = np.array([(dense := curve.dense_ms(contents.classes)).min(), dense.max()])
        least_ms, most_ms = correction.scale * ends_ms + correction.block_ms
        if not 0 < least_ms <= most_ms <= MOST_MS:
            raise InputError(
                f"correction makes blocks.{key} take {least_ms:.4g} to {most_ms:.4g} ms, a fault of the file"
            )
