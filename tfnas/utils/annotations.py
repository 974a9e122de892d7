"""The types of a dataclass's fields, from its annotations: for help texts and messages, and to check files."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfnas.core.errors import InputError

_DESCRIPTIONS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_METAVARS = {int: "N", float: "X", bool: "[true|false]"}


@dataclass(frozen=True)
class FieldType:
    """The type of a field: one of bool, int, float and str; `choices` where it is a Literal; or None, if `optional`."""

    type: type[Any]
    optional: bool
    choices: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """What a value must be."""
        return f"one of {', '.join(self.choices)}" if self.choices else _DESCRIPTIONS[self.type]

    def metavar(self, name: str) -> str:
        """What stands for the value in the help text; for text, the last word of the field's name."""
        if self.choices:
            return "{" + ",".join(self.choices) + "}"
        return _METAVARS.get(self.type, name.rpartition("_")[2].upper())

    def accepts(self, value: object) -> bool:
        """Whether a value read from YAML will do: whole numbers pass as numbers, true and false as nothing else."""
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if self.type is float and isinstance(value, str):  # YAML reads 1e-5, without a point, as text
            return re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) is not None
        accepted = (int, float) if self.type is float else (self.type,)
        return isinstance(value, accepted) and isinstance(value, bool) == (self.type is bool)

    def checked(self, value: Any, what: str) -> Any:
        """A value read from YAML, numbers as numbers. Raises InputError, beginning with `what`, for a wrong one."""
        if not self.accepts(value):
            raise InputError(f"{what} must be {self.description}, got {value!r}")
        return float(value) if self.type is float and isinstance(value, str) else value


def saved_fields(config_class: type[Any], saved: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Those fields of a dataclass that saved settings hold. Raises InputError naming `source` for a wrong one."""
    types = field_types(config_class)
    return {name: one.checked(saved[name], f"{source}: {name}") for name, one in types.items() if name in saved}


def field_types(config_class: type[Any]) -> dict[str, FieldType]:
    """The type of every field of a dataclass."""
    return {name: _field_type(hint) for name, hint in typing.get_type_hints(config_class).items()}


def _field_type(hint: Any) -> FieldType:
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Literal:
        return FieldType(str, optional, typing.get_args(hint))
    return FieldType(hint, optional)
