"""The bytes of a file that should be a latency table, of whatever kind, and the kind that its contents say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json, short
from tfnas.latency.json_fields import as_object

BLOCK_FORMAT = "tfnas-latency-table"
STRUCTURE_FORMAT = "tfnas-structure-latency-table"
"""What the JSON files of tables of MBConv blocks and of structures say of themselves."""
_OF = {BLOCK_FORMAT: "MBConv blocks", STRUCTURE_FORMAT: "structures (ZenNet, TinyNAS)"}
_LARGEST_FILE = 64 * 2**20


def table_bytes(file: Path) -> bytes:
    """The contents. Raises InputError where they cannot be read or are too many."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that holds a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"latency table {file} cannot be read: {reason}; "
            "give a table that `latency build` wrote, or one of the TF-NAS authors"
        ) from error
    if len(data) > _LARGEST_FILE:
        raise InputError(f"latency table {file} is larger than {_LARGEST_FILE >> 20} MiB, so it is not a latency table")
    return data


def is_json(data: bytes) -> bool:
    """Whether it is our form; else it may be the authors' pickle."""
    return data.lstrip().startswith(b"{")


def json_table(data: bytes) -> dict[str, Any]:
    """The fields of our form, of whatever format. Raises InputError where it is no JSON object."""
    return as_object(load_json(data), "the table")


def check_format(fields: Mapping[str, Any], expected: str) -> None:
    """Raise InputError unless the fields are of the format expected."""
    found = fields.get("format")
    if found == expected:
        return
    if isinstance(found, str) and found in _OF:
        raise InputError(f"it is a table of {_OF[found]}: one of {_OF[expected]} is needed here")
    raise InputError(f"format must be {expected!r}, got {short(found)}: give a table that `latency build` wrote")
