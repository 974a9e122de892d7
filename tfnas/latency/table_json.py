"""Our JSON form of a cost table of MBConv blocks, written and read, and what all readers of tables have in common.

Every field is checked, for a file may be cut off, edited or forged. No library among the dependencies reads JSON into
dataclasses with messages that name the field; the readers below do so from the annotations. Values are shown by their
beginning, containers by their kind.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json, short
from tfnas.latency.table_contents import (
    ANY_DEVICE,
    COSTS,
    DTYPES,
    LARGEST_WIDTH,
    LEAST_MS,
    LEVELS,
    MOST_MS,
    BasePart,
    BuildReport,
    ClassifierPart,
    Correction,
    Curve,
    Measurement,
    SumErrors,
    TableContents,
    WidthClasses,
    check_consistency,
)
from tfnas.spaces.mbconv.table_keys import KEY_PATTERN, STEM_PARTS
from tfnas.utils.text import command_line

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


# ---- tables of MBConv blocks -----------------------------------------------------------------------------------------

VERSION = 2
_LONGEST_KEY = 200


def table_to_json(contents: TableContents) -> dict[str, Any]:
    """The JSON document of a measured table."""
    measurement, classifier = contents.measurement, contents.classifier
    if measurement is None or classifier is None:
        raise InputError(
            "the authors' tables do not say where they were measured and cannot be written in our form; "
            "use the file itself, or measure a table: "
            + command_line("latency build", "--space", "NAME", "--out", "FILE")
        )
    document: dict[str, Any] = {
        "format": BLOCK_FORMAT,
        "version": VERSION,
        "cost": contents.cost,
        **dataclasses.asdict(measurement),
        "width_classes": dataclasses.asdict(contents.classes),
        "build": None if contents.build is None else dataclasses.asdict(contents.build),
        "correction": None if contents.correction is None else dataclasses.asdict(contents.correction),
        "base": {name: dataclasses.asdict(part) for name, part in contents.base.items()},
        "classifier": {"key": classifier.key, **_curve_to_json(classifier.curve)},
        "blocks": {key: _curve_to_json(curve) for key, curve in contents.curves.items()},
        "held_out": {key: _curve_to_json(curve) for key, curve in contents.held_out.items()},
    }
    document["instruction_sets"] = list(measurement.instruction_sets) or None
    return {name: value for name, value in document.items() if value is not None}


def _curve_to_json(curve: Curve) -> dict[str, Any]:
    return {"widths": list(curve.widths), "ms": list(curve.ms), "spread_ms": list(curve.spread_ms)}


def to_text(document: Mapping[str, Any]) -> str:
    """JSON with one line for every entry of the two upper levels: a block a line, so that versions can be compared."""
    entries = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
            entries.append(f" {json.dumps(name)}: {{\n{inner}\n }}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            inner = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            entries.append(f" {json.dumps(name)}: [\n{inner}\n ]")
        else:
            entries.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def read_json(data: bytes) -> TableContents:
    """The table in the bytes of a JSON file. Raises InputError naming the field that is wrong."""
    fields = json_table(data)
    check_format(fields, BLOCK_FORMAT)
    if fields.get("version") != VERSION:
        raise InputError(
            f"version must be {VERSION}, got {short(fields.get('version'))}: it was written by another "
            f"version of tfnas; measure the table again ({command_line('latency build', '--help')})"
        )
    own = {"format", "version", "cost", "width_classes", "base", "classifier", "blocks", "held_out"}
    measured = field_names(Measurement) - {SETS}
    check_names(fields, own | measured, "", optional={"build", "correction", SETS})
    if fields["cost"] not in COSTS:
        raise InputError(f"cost must be one of {', '.join(COSTS)}, got {short(fields['cost'])}")
    base = as_object(fields["base"], "base")
    check_names(base, set(STEM_PARTS), "base.")
    blocks = as_object(fields["blocks"], "blocks")
    if not blocks:
        raise InputError("blocks must contain at least one block")
    contents = TableContents(
        cost=fields["cost"],
        measurement=read_measurement(
            {name: fields[name] for name in measured} | {SETS: fields.get(SETS, [])},
        ),
        classes=_read_classes(fields["width_classes"]),
        build=record(BuildReport, fields["build"], "build") if "build" in fields else None,
        correction=read_correction(fields["correction"]) if "correction" in fields else None,
        base={name: record(BasePart, base[name], f"base.{name}") for name in STEM_PARTS},
        classifier=_read_classifier(fields["classifier"]),
        curves={key: _read_block(key, entry, "blocks") for key, entry in blocks.items()},
        held_out={
            key: _read_block(key, entry, "held_out") for key, entry in as_object(fields["held_out"], "held_out").items()
        },
    )
    check_consistency(contents)
    return contents


def _read_classes(entry: object) -> WidthClasses:
    classes = record(WidthClasses, entry, "width_classes")
    for name, count in vars(classes).items():
        if count > LARGEST_WIDTH:
            raise InputError(f"width_classes.{name} must be {LARGEST_WIDTH} at most, got {short(count)}")
    return classes


def _read_classifier(entry: object) -> ClassifierPart:
    fields = as_object(entry, "classifier")
    check_names(fields, {"key", "widths", "ms", "spread_ms"}, "classifier.")
    return ClassifierPart(as_text(fields["key"], "classifier.key"), _read_curve(fields, "classifier"))


def _read_block(key: str, entry: object, group: str) -> Curve:
    where = f"{group}.{key}"
    if KEY_PATTERN.fullmatch(key) is None or len(key) > _LONGEST_KEY:
        raise InputError(
            f"{group}.{key if key.isidentifier() else short(key)} is not the key of a block: "
            "MBInvertedResBlock_{size}_{in}_{se}_{out}_k3_s1_relu"
        )
    fields = as_object(entry, where)
    check_names(fields, {"widths", "ms", "spread_ms"}, f"{where}.")
    return _read_curve(fields, where)


def _read_curve(fields: Mapping[str, Any], where: str) -> Curve:
    widths, ms, spreads = (as_list(fields[name], f"{where}.{name}") for name in ("widths", "ms", "spread_ms"))
    if not widths or not len(widths) == len(ms) == len(spreads):
        raise InputError(f"{where}: widths, ms and spread_ms must be lists of one length, not empty")
    checked = tuple(as_whole(width, f"{where}.widths[{index}]") for index, width in enumerate(widths))
    if any(low >= high for low, high in itertools.pairwise(checked)) or checked[-1] > LARGEST_WIDTH:
        raise InputError(
            f"{where}.widths must grow from entry to entry, up to {LARGEST_WIDTH} at most, got {widths[:8]!s:.60}"
        )
    return Curve(
        widths=checked,
        ms=tuple(as_ms(value, f"{where}.ms[{index}]") for index, value in enumerate(ms)),
        spread_ms=tuple(as_spread(value, f"{where}.spread_ms[{index}]") for index, value in enumerate(spreads)),
    )


# ---- records ---------------------------------------------------------------------------------------------------------

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
