"""What a person sees of a measured table of structures: how much was measured, and how far predictions are off."""

from __future__ import annotations

from collections.abc import Iterator

from tfnas.latency.structure_table import StructureTable
from tfnas.report.table_report import ALL, PredictionError, effort_lines, error_lines, errors_by_group
from tfnas.spaces.zen.unit_shapes import UnitShape
from tfnas.spaces.zen.zen_family import ZenFamily


def structure_build_lines(table: StructureTable, family: ZenFamily) -> Iterator[str]:
    """Lines for a terminal, each headed by a word."""
    contents, initial = table.contents, family.initial
    yield f"table     {table.description}, fingerprint {table.fingerprint}"
    if contents.build is not None:
        yield from effort_lines(contents.build)
    yield from error_lines(held_out_errors(table), "prediction error")
    yield (
        f"initial   the network that a search of {contents.measurement.space} begins at takes "
        f"{table.quantity(table.architecture_ms(initial))}, with {initial.num_classes} classes"
    )


def held_out_errors(table: StructureTable) -> dict[str, PredictionError]:
    """Over `ALL` held-out units, then by block type and kernel; empty where the table holds none."""
    rows = [
        (_group(shape), abs(table.unit_ms(shape) / timing.ms - 1) * 100)
        for shape, timing in table.contents.held_out.items()
    ]
    return errors_by_group([*((ALL, error) for _, error in rows), *rows])


def _group(shape: UnitShape) -> str:
    return f"{shape.block_type} k{shape.kernel}"
