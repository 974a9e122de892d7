"""Report of a measured table: number of points, held-out interpolation error, and how steady the machine was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import SpaceBounds
from tfnas.latency.table_contents import BuildReport, TableContents
from tfnas.latency.width_alignment import aligned_width_ratio
from tfnas.utils.text import clock

ALL = "all blocks"


@dataclass(frozen=True)
class InterpolationError:
    """Sizes of relative errors, in percent of what was measured, over so many points."""

    points: int
    median_percent: float
    p95_percent: float


def interpolation_errors(contents: TableContents) -> dict[str, InterpolationError]:
    """Over `ALL` held-out points, then by kind of block (`k3`, `k5 SE`); empty where the table holds none."""
    errors: dict[str, list[float]] = {}
    for key, held_out in contents.held_out.items():
        curve = contents.curves[key]
        interpolated = curve.dense_ms(contents.classes)
        for width, ms in zip(held_out.widths, held_out.ms, strict=True):
            error = abs(float(interpolated[width - curve.widths[0]]) / ms - 1) * 100
            for group in (ALL, _kind_of(key)):
                errors.setdefault(group, []).append(error)
    return {
        group: InterpolationError(len(row), float(np.median(row)), float(np.percentile(row, 95)))
        for group, row in sorted(errors.items(), key=lambda pair: (pair[0] != ALL, pair[0]))
    }


def _kind_of(key: str) -> str:
    """The kind of a block's key: its kernel, and whether it has SE."""
    _, _, _, se_channels, _, kernel, *_ = key.split("_")
    return kernel if se_channels == "0" else f"{kernel} SE"


_QUIET = 0.05
_LOUD = 0.2
_WORTH_KEEPING_TO = 0.9
_POOR_MEDIAN, _POOR_P95 = 5.0, 20.0


def build_lines(table: LatencyTable, space: SearchSpace) -> Iterator[str]:
    """Lines for a terminal, each headed by a word."""
    contents = table.contents
    yield f"table     {table.description}, fingerprint {table.fingerprint}"
    if contents.build is not None:
        yield from _effort(contents.build)
    yield from _errors(contents)
    if contents.cost == "ms":
        yield f"widths    {_preference(contents)}"
    yield f"reachable {SpaceBounds.of(space, table).description}, with {table.num_classes} classes"


def _effort(build: BuildReport) -> Iterator[str]:
    part = build.enumerated_points / build.points
    yield (
        f"points    {build.points} of the {build.enumerated_points} that every width would need (1/{part:.0f}), and "
        f"{build.held_out_points} held out; {build.visits} measurements in {clock(build.seconds)}"
    )
    spread = build.reference_spread_ms / build.reference_ms
    word = "quiet" if spread < _QUIET else "noisy" if spread < _LOUD else "very noisy"
    advice = "" if spread < _QUIET else "; results improve on an idle machine"
    yield (
        f"machine   {word}: the reference took {build.reference_ms:.3f} ms, interquartile range {spread:.0%}, "
        f"fast and slow phases {build.fastest_drift:.2f} to {build.slowest_drift:.2f} of it; {build.repeated_visits} "
        f"disturbed measurements were repeated{advice}"
    )


def _errors(contents: TableContents) -> Iterator[str]:
    errors = interpolation_errors(contents)
    for name, error in errors.items():
        yield (
            f"held-out  interpolation error, {name}: median {error.median_percent:.1f} %, p95 "
            f"{error.p95_percent:.1f} % ({error.points} points)"
        )
    if ALL in errors and (errors[ALL].median_percent > _POOR_MEDIAN or errors[ALL].p95_percent > _POOR_P95):
        yield "warning: errors this large mislead a search; measure again, with more time or on a quieter machine"


def _preference(contents: TableContents) -> str:
    classes = contents.classes
    if classes.multiple == 1:
        return "no preferred channel multiple was detected on this device"
    share = aligned_width_ratio(contents.curves.values(), classes)
    stairs = [
        f"latency of {name} is a step function with steps of {stair}"
        for name, stair in (("these", classes.multiples_stair), ("the others", classes.others_stair))
        if stair > 1
    ]
    advice = f"; --width_multiple {classes.multiple} searches them only" if share < _WORTH_KEEPING_TO else ""
    return (
        f"multiples of {classes.multiple} channels take {share:.2f} of the latency of neighbouring widths"
        f"{''.join(f', {words}' for words in stairs)}{advice}"
    )
