"""What a person is told of a measured table: how many points, how good, how quiet the machine was."""

from __future__ import annotations

from collections.abc import Iterator

from tfnas.latency.building.held_out import interpolation_errors
from tfnas.latency.contents import BuildReport, TableContents
from tfnas.latency.ranges.words import bounds_text
from tfnas.latency.table import LatencyTable
from tfnas.space import SearchSpace
from tfnas.wording import clock

_QUIET = 0.05
_LOUD = 0.2


def build_lines(table: LatencyTable, space: SearchSpace) -> Iterator[str]:
    """Lines for a terminal, each headed by a word."""
    contents = table.contents
    yield f"table     {table.description}, fingerprint {table.fingerprint}"
    if contents.build is not None:
        yield from _effort(contents.build)
    yield from _errors(contents)
    if contents.cost == "ms":
        yield f"widths    {_preference(contents)}"
    yield f"reachable {bounds_text(space, table)}"


def _effort(build: BuildReport) -> Iterator[str]:
    part = build.enumerated_points / build.points
    yield (
        f"points    {build.points} of the {build.enumerated_points} that every width would need (1/{part:.0f}), "
        f"{build.visits} visits in {clock(build.seconds)}"
    )
    spread = build.reference_spread_ms / build.reference_ms
    word = "quiet" if spread < _QUIET else "noisy" if spread < _LOUD else "very noisy"
    advice = "" if spread < _QUIET else "; with nothing else running the figures would be better"
    yield (
        f"machine   {word}: the reference took {build.reference_ms:.3f} ms, half of its calls within {spread:.0%}, "
        f"stretches of {build.fastest_drift:.2f} to {build.slowest_drift:.2f} of it; {build.repeated_visits} disturbed "
        f"visits were repeated{advice}"
    )


def _errors(contents: TableContents) -> Iterator[str]:
    for name, error in interpolation_errors(contents).items():
        yield (
            f"held out  {name}: {error.points} points that are not used are missed by {error.median_percent:.1f} % in "
            f"the median, {error.p95_percent:.1f} % at the 95th percentile"
        )


def _preference(contents: TableContents) -> str:
    classes = contents.classes
    if classes.multiple == 1:
        return "no preference of this device for multiples of some number of channels was seen"
    stairs = ", and the others lie on stairs between them" if classes.steps else ""
    return f"multiples of {classes.multiple} channels are a class of their own on this device{stairs}"
