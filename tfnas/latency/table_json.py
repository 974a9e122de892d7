"""Our JSON form of a cost table of MBConv blocks, written and read (`json_fields.py`)."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.latency.json_fields import (
    SETS,
    as_list,
    as_ms,
    as_object,
    as_spread,
    as_text,
    as_whole,
    check_names,
    field_names,
    read_correction,
    read_measurement,
    record,
)
from tfnas.latency.table_contents import (
    COSTS,
    LARGEST_WIDTH,
    BasePart,
    BuildReport,
    ClassifierPart,
    Curve,
    Measurement,
    TableContents,
    WidthClasses,
    check_consistency,
)
from tfnas.latency.table_file import BLOCK_FORMAT, check_format, json_table
from tfnas.spaces.mbconv.table_keys import KEY_PATTERN, STEM_PARTS
from tfnas.utils.text import command_line

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
