"""Our JSON form of a latency table, checked field by field when read."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfnas.errors import InputError, RunFailed
from tfnas.latency.contents import LARGEST_WIDTH, BasePart, Curve, Measurement, TableContents
from tfnas.latency.keys import BASE_PARTS, KEY_PATTERN

FORMAT = "tfnas-latency-table"
VERSION = 1

_TEXTS = ("space", "space_fingerprint", "device", "runtime", "dtype", "memory_format", "procedure")
_COUNTS = ("image_size", "batch_size", "threads")
_DEVICE_KINDS = ("cpu", "cuda")


def table_to_json(contents: TableContents) -> dict[str, Any]:
    """The JSON document of a measured table."""
    if contents.measurement is None:
        raise InputError(
            "the authors' tables do not say where they were measured and cannot be written in our form; "
            "use the file itself, or measure a table: python -m tfnas latency build --space NAME --out FILE"
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        **dataclasses.asdict(contents.measurement),
        "base": {name: dataclasses.asdict(part) for name, part in contents.base.items()},
        "blocks": {
            key: {"widths": list(curve.widths), "ms": list(curve.ms), "spread_ms": list(curve.spread_ms)}
            for key, curve in contents.curves.items()
        },
    }


def check_writable(path: Path) -> None:
    """Raise RunFailed naming the file if it could not be written: worth knowing before measuring for minutes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise RunFailed(f"the latency table could not be written to {path}: {error}") from error


def to_text(document: Mapping[str, Any]) -> str:
    """JSON with one line for every entry of the two upper levels: a block a line, so that versions can be compared."""
    entries = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
            entries.append(f" {json.dumps(name)}: {{\n{inner}\n }}")
        else:
            entries.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def read_json(data: bytes) -> TableContents:
    """The table in the bytes of a JSON file. Raises InputError naming the field that is wrong."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    fields = _mapping(document, "the table")
    if fields.get("format") != FORMAT:
        raise InputError(f"format must be {FORMAT!r}, got {fields.get('format')!r}")
    if fields.get("version") != VERSION:
        raise InputError(f"version must be {VERSION}, got {fields.get('version')!r}: it was written by another tfnas")
    known = {"format", "version", "base", "blocks", *(field.name for field in dataclasses.fields(Measurement))}
    _exactly(fields, known, "")
    base = _mapping(fields["base"], "base")
    _exactly(base, set(BASE_PARTS), "base.")
    blocks = _mapping(fields["blocks"], "blocks")
    if not blocks:
        raise InputError("blocks must hold one block at least")
    return TableContents(
        base={name: _read_part(base[name], f"base.{name}") for name in BASE_PARTS},
        curves={key: _read_curve(key, entry) for key, entry in blocks.items()},
        measurement=_read_measurement(fields),
    )


def _read_measurement(fields: Mapping[str, Any]) -> Measurement:
    for name in _TEXTS:
        _text(fields[name], name)
    for name in _COUNTS:
        _whole(fields[name], name)
    if fields["device_kind"] not in _DEVICE_KINDS:
        raise InputError(f"device_kind must be one of {', '.join(_DEVICE_KINDS)}, got {fields['device_kind']!r}")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", _text(fields["date"], "date")) is None:
        raise InputError(f"date must be a day like 2025-01-31, got {fields['date']!r}")
    versions = {
        name: _text(version, f"versions.{name}") for name, version in _mapping(fields["versions"], "versions").items()
    }
    names = (field.name for field in dataclasses.fields(Measurement) if field.name != "versions")
    return Measurement(versions=versions, **{name: fields[name] for name in names})


def _read_part(entry: object, where: str) -> BasePart:
    fields = _mapping(entry, where)
    _exactly(fields, {"key", "ms", "spread_ms"}, f"{where}.")
    return BasePart(
        key=_text(fields["key"], f"{where}.key"),
        ms=_ms(fields["ms"], f"{where}.ms"),
        spread_ms=_spread(fields["spread_ms"], f"{where}.spread_ms"),
    )


def _read_curve(key: str, entry: object) -> Curve:
    where = f"blocks.{key}"
    if KEY_PATTERN.fullmatch(key) is None:
        raise InputError(
            f"{where} is not the key of a block: MBInvertedResBlock_{{size}}_{{in}}_{{se}}_{{out}}_k3_s1_relu"
        )
    fields = _mapping(entry, where)
    _exactly(fields, {"widths", "ms", "spread_ms"}, f"{where}.")
    widths, ms, spreads = (_list(fields[name], f"{where}.{name}") for name in ("widths", "ms", "spread_ms"))
    if not widths or not len(widths) == len(ms) == len(spreads):
        raise InputError(f"{where}: widths, ms and spread_ms must be lists of one length, not empty")
    checked = tuple(_whole(width, f"{where}.widths[{index}]") for index, width in enumerate(widths))
    if any(low >= high for low, high in itertools.pairwise(checked)) or checked[-1] > LARGEST_WIDTH:
        raise InputError(
            f"{where}.widths must grow from entry to entry, up to {LARGEST_WIDTH} at most, got {widths[:8]}"
        )
    return Curve(
        widths=checked,
        ms=tuple(_ms(value, f"{where}.ms[{index}]") for index, value in enumerate(ms)),
        spread_ms=tuple(_spread(value, f"{where}.spread_ms[{index}]") for index, value in enumerate(spreads)),
    )


# ---- single values; each raises InputError naming the field -------------------------------------------------------


def _exactly(fields: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for name in sorted(known - set(fields)):
        raise InputError(f"field {prefix}{name} is missing")
    for name in sorted(set(fields) - known):
        raise InputError(f"unknown field {prefix}{name}")


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be an object, got {_short(value)}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list, got {_short(value)}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} must be text, got {_short(value)}")
    return value


def _whole(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{where} must be a whole number above 0, got {_short(value)}")
    return value


def _number(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(f"{where} must be a finite number, got {_short(value)}")
    return float(value)


def _ms(value: object, where: str) -> float:
    number = _number(value, where)
    if number <= 0:
        raise InputError(f"{where} must be above 0 ms, got {number}")
    return number


def _spread(value: object, where: str) -> float:
    number = _number(value, where)
    if number < 0:
        raise InputError(f"{where} must be 0 ms or more, got {number}")
    return number


def _short(value: object) -> str:
    return repr(value)[:60]
