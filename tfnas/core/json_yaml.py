"""JSON and YAML that are not to be trusted: read whole, in one way only; and their values in messages, on one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
