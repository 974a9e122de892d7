"""What a person is told of a measured table: how many points, how good, how quiet the machine was."""

from __future__ import annotations

from collections.abc import Iterator

from tfnas.latency.building.held_out import ALL, interpolation_errors
from tfnas.latency.building.staircase import advantage_of
from tfnas.latency.contents import BuildReport, TableContents
from tfnas.latency.ranges.words import bounds_text
from tfnas.latency.table import LatencyTable
from tfnas.space import SearchSpace
from tfnas.wording import clock

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
    yield f"reachable {bounds_text(space, table)}, with {table.num_classes} classes"


def _effort(build: BuildReport) -> Iterator[str]:
    part = build.enumerated_points / build.points
    yield (
        f"points    {build.points} of the {build.enumerated_points} that every width would need (1/{part:.0f}), and "
        f"{build.held_out_points} held out; {build.visits} visits in {clock(build.seconds)}"
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
    errors = interpolation_errors(contents)
    for name, error in errors.items():
        yield (
            f"held out  {name}: {error.points} points that are not used are missed by {error.median_percent:.1f} % in "
            f"the median, {error.p95_percent:.1f} % at the 95th percentile"
        )
    if ALL in errors and (errors[ALL].median_percent > _POOR_MEDIAN or errors[ALL].p95_percent > _POOR_P95):
        yield "warning: so large errors mislead a search; measure again, with more time or on a quieter machine"


def _preference(contents: TableContents) -> str:
    classes = contents.classes
    if classes.multiple == 1:
        return "no preference of this device for multiples of some number of channels was seen"
    share = advantage_of(contents.curves.values(), classes)
    stairs = [
        f"{name} lie on stairs of {stair}"
        for name, stair in (("they", classes.multiples_stair), ("the others", classes.others_stair))
        if stair > 1
    ]
    advice = f"; --width_multiple {classes.multiple} searches them only" if share < _WORTH_KEEPING_TO else ""
    return (
        f"multiples of {classes.multiple} channels take {share:.2f} of what those around them take here"
        f"{''.join(f', {words}' for words in stairs)}{advice}"
    )
