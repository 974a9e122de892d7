"""JSON and YAML that are not to be trusted: read whole, in one way only, and checked against the fields of a dataclass.

And their values in messages, on one line.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tfnas.core.errors import InputError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_SHOWN = 60
_LARGEST_SHOWN = 10**30


def load_json(data: bytes) -> object:
    """The document in the bytes of a JSON file.

    Raises InputError where it is not JSON in UTF-8, nested too deeply, or says something twice.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"not JSON: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error


def load_json_file(path: Path) -> object:
    """The document in a JSON file; a byte order mark before it, as some editors write it, is no part of it.

    Raises FileNotFoundError; InputError naming the file where it cannot be read, or is none that `load_json` takes.
    """
    try:
        return load_json(path.read_bytes().removeprefix(_BYTE_ORDER_MARK))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {str(error).removeprefix('not JSON: ')}") from error


def _without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Of two entries of one name, readers take different ones, so neither is to be believed."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names: set[str] = set()
        twice = next(name for name, _ in pairs if name in names or names.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"duplicate key {short(twice)} in one object")
    return found


def short(value: object) -> str:
    """A value for a message: its beginning, on one line. A container by its kind: it may be large, and deep."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST_SHOWN:
        return f"a whole number of {value.bit_length()} bits"
    return ascii(value[:_LONGEST_SHOWN] if isinstance(value, str) else value)[:_LONGEST_SHOWN]


class StandsTwice(InputError):
    """A mapping names a field twice; readers take different ones, so neither is to be believed."""


def load_yaml(text: str) -> Any:
    """The document in the text of a YAML file.

    Raises InputError, on one line, where it is not YAML, asks for anything but text, numbers, dates and containers, or
    is nested too deeply; StandsTwice, an InputError, where it names a field twice.
    """
    try:
        return yaml.load(text, _OnceLoader)
    except StandsTwice:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Of values that its tags do not fit (`!!int x`, `2020-13-45`), the library's own code raises the latter.
        raise InputError(f"not YAML: {' '.join(str(error).split())}") from error


class _OnceLoader(yaml.SafeLoader):
    """The safe loader, but for mappings that name a field twice, of which that takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping as it is written, without what `<<` brings in. Raises StandsTwice, placing the second."""
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    raise StandsTwice(
                        f"not YAML: duplicate key {short(key.value)} in one mapping, at line {line}, column {column}"
                    )
                names.add(key.value)
        return node


# ---- the types of a dataclass's fields: to check files, for help texts and messages ----------------------------------

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
