"""Our JSON form of a latency table, written; `table_reader.py` reads it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfnas.errors import InputError
from tfnas.invocation import command_line
from tfnas.latency.contents import Curve, TableContents

FORMAT = "tfnas-latency-table"
VERSION = 2


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
        "format": FORMAT,
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
        else:
            entries.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(entries) + "\n}\n"
