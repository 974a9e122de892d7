"""Our JSON form of a latency table of structures, written and read: every field is checked (`table_json.py`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.core.mbconv_blocks import MOST_CHANNELS, MOST_CLASSES, MOST_IMAGE_SIZE
from tfnas.latency.table_contents import MOST_MS, BuildReport, Correction, Measurement
from tfnas.latency.table_json import (
    SETS,
    STRUCTURE_FORMAT,
    as_list,
    as_ms,
    as_object,
    as_spread,
    as_text,
    as_truth,
    as_whole,
    check_format,
    check_names,
    field_names,
    read_correction,
    read_measurement,
    record,
)
from tfnas.spaces.zen.super_block import Notation
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, UnitShape, classifier_shape
from tfnas.utils.text import command_line

VERSION = 1
_NORMAL_IQR = 1.349
_MOST_POINTS = 100_000


@dataclass(frozen=True)
class UnitTiming:
    """Milliseconds of a unit per batch, with the interquartile range of so many calls."""

    ms: float
    spread_ms: float
    runs: int

    @property
    def noise(self) -> float:
        """Relative standard error of the median, as if the calls were independent and nearly normal."""
        return math.sqrt(math.pi / 2 / self.runs) * self.spread_ms / _NORMAL_IQR / self.ms


@dataclass(frozen=True, kw_only=True)
class StructureTableContents:
    """Measured units, and where they were measured.

    `held_out` are measured, too, but not used: they tell the error of the model.
    """

    measurement: Measurement
    points: Mapping[UnitShape, UnitTiming]
    held_out: Mapping[UnitShape, UnitTiming] = field(default_factory=dict)
    build: BuildReport | None = None
    correction: Correction | None = None

    @property
    def notation(self) -> Notation:
        """That of all its structures."""
        return next(iter(self.points)).notation


def structure_table_to_json(contents: StructureTableContents) -> dict[str, Any]:
    """The JSON document of a table."""
    measurement = dataclasses.asdict(contents.measurement)
    document: dict[str, Any] = {
        "format": STRUCTURE_FORMAT,
        "version": VERSION,
        **measurement,
        SETS: list(contents.measurement.instruction_sets) or None,
        "notation": contents.notation,
        "build": None if contents.build is None else dataclasses.asdict(contents.build),
        "correction": None if contents.correction is None else dataclasses.asdict(contents.correction),
        "units": _points_to_json(contents.points),
        "held_out": _points_to_json(contents.held_out),
    }
    return {name: value for name, value in document.items() if value is not None}


def _points_to_json(points: Mapping[UnitShape, UnitTiming]) -> list[dict[str, Any]]:
    return [
        {**{name: value for name, value in shape._asdict().items() if name != "notation"}, **vars(timing)}
        for shape, timing in points.items()
    ]


def read_structure_table(fields: dict[str, Any]) -> StructureTableContents:
    """The table in a JSON document. Raises InputError naming the field that is wrong."""
    check_format(fields, STRUCTURE_FORMAT)
    if fields.get("version") != VERSION:
        raise InputError(
            f"version must be {VERSION}, got {short(fields.get('version'))}: it was written by another "
            f"version of tfnas; measure the table again ({command_line('latency build', '--help')})"
        )
    measured = field_names(Measurement) - {SETS}
    own = {"format", "version", "notation", "units", "held_out"}
    check_names(fields, own | measured, "", optional={"build", "correction", SETS})
    notation = fields["notation"]
    if notation not in get_args(Notation):
        raise InputError(f"notation must be {' or '.join(get_args(Notation))}, got {short(notation)}")
    points = _read_points(fields["units"], "units", notation)
    if not points:
        raise InputError("units must contain at least one unit")
    contents = StructureTableContents(
        measurement=read_measurement({name: fields[name] for name in measured} | {SETS: fields.get(SETS, [])}),
        points=points,
        held_out=_read_points(fields["held_out"], "held_out", notation),
        build=record(BuildReport, fields["build"], "build") if "build" in fields else None,
        correction=read_correction(fields["correction"]) if "correction" in fields else None,
    )
    _check_consistency(contents)
    return contents


def _read_points(entries: object, where: str, notation: Notation) -> dict[UnitShape, UnitTiming]:
    rows = as_list(entries, where)
    if len(rows) > _MOST_POINTS:
        raise InputError(f"{where} must be {_MOST_POINTS} units at most, got {len(rows)}")
    points: dict[UnitShape, UnitTiming] = {}
    for number, row in enumerate(rows):
        shape, timing = _read_point(row, f"{where}[{number}]", notation)
        if shape in points:
            raise InputError(f"{where}[{number}]: {shape.text} is there twice")
        points[shape] = timing
    return points


def _read_point(entry: object, where: str, notation: Notation) -> tuple[UnitShape, UnitTiming]:
    fields = as_object(entry, where)
    names = set(UnitShape._fields) - {"notation"}
    check_names(fields, names | field_names(UnitTiming), f"{where}.")
    values: dict[str, Any] = {}
    for name in names:
        place = f"{where}.{name}"
        if name in ("projected", "squeeze_excite"):
            values[name] = as_truth(fields[name], place)
        elif name in ("block_type", "activation"):
            values[name] = as_text(fields[name], place)
        else:
            values[name] = as_whole(fields[name], place, least=0 if name == "inside" else 1)
            if values[name] > (most := MOST_IMAGE_SIZE if name == "size" else MOST_CHANNELS):
                raise InputError(f"{place} must be {most} at most, got {values[name]}")
    shape = UnitShape(notation=notation, **values)
    try:
        _check_shape(shape)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return shape, UnitTiming(
        as_ms(fields["ms"], f"{where}.ms"),
        as_spread(fields["spread_ms"], f"{where}.spread_ms"),
        as_whole(fields["runs"], f"{where}.runs"),
    )


def _check_shape(shape: UnitShape) -> None:
    if shape.block_type != CLASSIFIER:
        shape.unit()
    elif shape != classifier_shape(shape.notation, shape.in_channels, shape.out_channels, shape.size):
        raise InputError(f"{shape.text} contradicts itself: there is no such classifier")
    elif shape.out_channels > MOST_CLASSES:
        raise InputError(f"out_channels of a classifier must be {MOST_CLASSES} at most, got {shape.out_channels}")


def _check_consistency(contents: StructureTableContents) -> None:
    """Raise InputError naming what contradicts what."""
    kinds = {shape.kind for shape in contents.points}
    for number, shape in enumerate(contents.held_out):
        if shape in contents.points:
            raise InputError(f"held_out[{number}]: {shape.text} is among the units, too")
        if shape.kind not in kinds:
            raise InputError(f"held_out[{number}]: there is nothing of the kind of {shape.text} among the units")
    if all(shape.block_type != CLASSIFIER for shape in contents.points):
        raise InputError("units must contain a classifier")
    if contents.correction is not None:
        _check_correction(contents.points, contents.correction)
    if contents.build is not None:
        for name, found in (("points", len(contents.points)), ("held_out_points", len(contents.held_out))):
            if getattr(contents.build, name) != found:
                raise InputError(f"build.{name} is {getattr(contents.build, name)}, but the table contains {found}")


def _check_correction(points: Mapping[UnitShape, UnitTiming], correction: Correction) -> None:
    """A correction must leave every unit and every classifier that was measured above zero."""
    for shape, timing in points.items():
        added_ms = correction.offset_ms if shape.block_type == CLASSIFIER else correction.block_ms
        found_ms = correction.scale * timing.ms + added_ms
        if not 0 < found_ms <= MOST_MS:
            raise InputError(f"the correction gives {found_ms:.4g} ms for {shape.text}: the file is corrupt")
