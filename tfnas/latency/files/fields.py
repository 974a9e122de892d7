"""Single values of a file that is not to be trusted: each is checked, and named where it is wrong.

Whatever stands in the file, a message is one short line: values are shown by their beginning, containers by their kind.
"""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Mapping, Set
from typing import Any

from tfnas.errors import InputError
from tfnas.json_text import short

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
