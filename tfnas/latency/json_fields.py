"""Reading the records of cost tables from JSON: every field is checked, for a file may be cut off, edited or forged.

No library among the dependencies reads JSON into dataclasses with messages that name the field; the readers below do
so from the annotations. Values are shown by their beginning, containers by their kind.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import unicodedata
from collections.abc import Mapping, Set
from typing import Any, TypeVar, get_type_hints

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.latency.table_contents import (
    ANY_DEVICE,
    DTYPES,
    LARGEST_WIDTH,
    LEAST_MS,
    LEVELS,
    MOST_MS,
    Correction,
    Measurement,
    SumErrors,
)

R = TypeVar("R")

_DEVICE_KINDS = ("cpu", "cuda", ANY_DEVICE)
SETS = "instruction_sets"
"""The field of a measurement that earlier files lack."""
_MOST = {"batch_size": 2**24, "threads": 2**16, "image_size": 2**16, "width_multiple": LARGEST_WIDTH}
_MAY_BE_ZERO = ("repeated_visits", "held_out_points", "seed")
_ABOVE_ZERO = ("scale", "machine_ratio", "reference_ms", "slowest_drift", "fastest_drift")
_BOUNDS = {
    "seconds": (0.0, math.inf),
    "reference_spread_ms": (0.0, math.inf),
    "median_percent": (0.0, math.inf),
    "worst_percent": (0.0, math.inf),
    "kendall_tau": (-1.0, 1.0),
}


def read_measurement(fields: Mapping[str, Any]) -> Measurement:
    """Where and how a table was measured."""
    measurement = record(Measurement, fields, "")
    if measurement.device_kind not in _DEVICE_KINDS:
        raise InputError(f"device_kind must be one of {', '.join(_DEVICE_KINDS)}, got {short(measurement.device_kind)}")
    if measurement.dtype not in (*DTYPES, ANY_DEVICE):
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {short(measurement.dtype)}")
    for name, most in _MOST.items():
        if getattr(measurement, name) > most:
            raise InputError(f"{name} must be {most} at most, got {short(getattr(measurement, name))}")
    _check_day(measurement.date, "date")
    return measurement


def read_correction(entry: object) -> Correction:
    """The correction of a table."""
    correction = record(Correction, entry, "correction")
    if correction.level not in LEVELS:
        raise InputError(f"correction.level must be one of {', '.join(LEVELS)}, got {short(correction.level)}")
    _check_day(correction.date, "correction.date")
    return correction


def _check_day(text: str, where: str) -> None:
    """Raise InputError unless it is a day: YYYY-MM-DD."""
    try:
        right = re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None
        datetime.date.fromisoformat(text)
    except ValueError:
        right = False
    if not right:
        raise InputError(f"{where} must be a day like 2025-01-31, got {short(text)}")


def record(kind: type[R], entry: object, where: str) -> R:
    """A dataclass of plain values, each checked for what its annotation and its name say."""
    prefix = f"{where}." if where else ""
    fields = as_object(entry, where)
    check_names(fields, field_names(kind), prefix)
    annotations = get_type_hints(kind)
    return kind(**{name: _value(annotations[name], value, prefix + name) for name, value in fields.items()})


def _value(annotation: Any, value: object, where: str) -> object:
    if annotation is bool:
        return as_truth(value, where)
    if annotation is int:
        return as_whole(value, where, least=0 if where.rpartition(".")[2] in _MAY_BE_ZERO else 1)
    if annotation is float:
        return _number(value, where)
    if annotation is SumErrors:
        return record(SumErrors, value, where)
    if annotation is str:
        return as_text(value, where)
    if annotation == tuple[str, ...]:
        return tuple(as_text(entry, f"{where}[{index}]") for index, entry in enumerate(as_list(value, where)))
    return {as_text(name, where): as_text(entry, f"{where}.{name}") for name, entry in as_object(value, where).items()}


def _number(value: object, where: str) -> float:
    """A finite number, within what its name allows."""
    name = where.rpartition(".")[2]
    if name in ("ms", "spread_ms"):
        return as_ms(value, where) if name == "ms" else as_spread(value, where)
    number = _as_number(value, where)
    low, high = _BOUNDS.get(name, (-math.inf, math.inf))
    if name in _ABOVE_ZERO and number <= 0:
        raise InputError(f"{where} must be above 0, got {number:g}")
    if not low <= number <= high:
        limits = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
        raise InputError(f"{where} must be {limits}, got {number:g}")
    return number


# ---- single values ------------------------------------------------------------------------------------------------


def field_names(kind: type[Any]) -> set[str]:
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


def _as_number(value: object, where: str) -> float:
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
    number = _as_number(value, where)
    if number <= 0:
        raise InputError(f"{where} must be above 0 ms, got {number}")
    if not LEAST_MS <= number <= MOST_MS:
        raise InputError(f"{where} must be {LEAST_MS:g} to {MOST_MS:g} ms, got {number}")
    return number


def as_spread(value: object, where: str) -> float:
    """The spread of such figures: 0 or more."""
    number = _as_number(value, where)
    if number < 0:
        raise InputError(f"{where} must be 0 ms or more, got {number}")
    return number
