"""Single values of a file that is not to be trusted: each is checked, and named where it is wrong.

Whatever stands in the file, a message is one short line: values are shown by their beginning, containers by their kind.

Whether the parts of a table that was read go together; the reader has checked each by itself.
"""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.latency.table_contents import ANY_DEVICE, TableContents

LEAST_MS, MOST_MS = 1e-9, 1e15
"""What is outside is no measurement, and would make interpolation overflow."""


def names_of(kind: type[Any]) -> set[str]:
    """The fields of a dataclass."""
    return {field.name for field in dataclasses.fields(kind)}


def check_names(fields: Mapping[str, Any], known: Set[str], prefix: str, optional: Set[str] = frozenset()) -> None:
    """Raise InputError for a field that is missing or not known."""
    for name in sorted(known - set(fields)):
        raise InputError(f"field {prefix}{name} is missing")
    for name in sorted(set(fields) - known - optional):
        raise InputError(f"unknown field {prefix}{name if name.isidentifier() else short(name)}")


def as_object(value: object, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{where} must be an object, got {short(value)}")
    return value


def as_list(value: object, where: str) -> list[Any]:
    """A JSON list."""
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list, got {short(value)}")
    return value


def as_text(value: object, where: str) -> str:
    """Text that can be shown on one line: not empty, no control characters, no halves of characters."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} must be text, got {short(value)}")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        raise InputError(f"{where} must be text on one line without control characters, got {short(value)}")
    return value


def as_whole(value: object, where: str, least: int = 1) -> int:
    """A whole number of `least` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{where} must be a whole number above {least - 1}, got {short(value)}")
    return value


def as_truth(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InputError(f"{where} must be true or false, got {short(value)}")
    return value


def as_number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            number = math.inf
        if math.isfinite(number):
            return number
    raise InputError(f"{where} must be a finite number, got {short(value)}")


def as_ms(value: object, where: str) -> float:
    """Milliseconds, or what else a table counts: above 0, and of a size that can be meant."""
    number = as_number(value, where)
    if number <= 0:
        raise InputError(f"{where} must be above 0 ms, got {number}")
    if not LEAST_MS <= number <= MOST_MS:
        raise InputError(f"{where} must be {LEAST_MS:g} to {MOST_MS:g} ms, got {number}")
    return number


def as_spread(value: object, where: str) -> float:
    """The spread of such figures: 0 or more."""
    number = as_number(value, where)
    if number < 0:
        raise InputError(f"{where} must be 0 ms or more, got {number}")
    return number


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
