"""What a person sees of a measured table and of its check: points, interpolation errors, how steady the machine was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from tfnas.bench.check_report import HELD_OUT, CheckReport
from tfnas.core.space import SearchSpace
from tfnas.latency.correction_fit import Coefficients
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import SpaceBounds
from tfnas.latency.table_contents import BuildReport, Correction, SumErrors, TableContents
from tfnas.latency.width_alignment import aligned_width_ratio
from tfnas.utils.text import clock, say

ALL = "all blocks"


@dataclass(frozen=True)
class PredictionError:
    """Sizes of relative errors, in percent of what was measured, over so many points."""

    points: int
    median_percent: float
    p95_percent: float


def interpolation_errors(contents: TableContents) -> dict[str, PredictionError]:
    """Over `ALL` held-out points, then by kind of block (`k3`, `k5 SE`); empty where the table holds none."""
    rows: list[tuple[str, float]] = []
    for key, held_out in contents.held_out.items():
        curve = contents.curves[key]
        interpolated = curve.dense_ms(contents.classes)
        for width, ms in zip(held_out.widths, held_out.ms, strict=True):
            error = abs(float(interpolated[width - curve.widths[0]]) / ms - 1) * 100
            rows += [(group, error) for group in (ALL, _key_group(key))]
    return errors_by_group(rows)


def errors_by_group(rows: Iterable[tuple[str, float]]) -> dict[str, PredictionError]:
    """Of errors with the name of their group; `ALL` comes first."""
    errors: dict[str, list[float]] = {}
    for group, error in rows:
        errors.setdefault(group, []).append(error)
    return {
        group: PredictionError(len(row), float(np.median(row)), float(np.percentile(row, 95)))
        for group, row in sorted(errors.items(), key=lambda pair: (pair[0] != ALL, pair[0]))
    }


def _key_group(key: str) -> str:
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
        yield from effort_lines(contents.build)
    yield from error_lines(interpolation_errors(contents), "interpolation error")
    if contents.cost == "ms":
        yield f"widths    {_preference(contents)}"
    yield f"reachable {SpaceBounds.of(space, table).description}, with {table.num_classes} classes"


def effort_lines(build: BuildReport) -> Iterator[str]:
    """Lines on what was measured, and how quiet the machine was."""
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


def error_lines(errors: Mapping[str, PredictionError], words: str) -> Iterator[str]:
    """Lines of held-out errors by group, with a warning where they are large."""
    for name, error in errors.items():
        yield (
            f"held-out  {words}, {name}: median {error.median_percent:.1f} %, p95 "
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


_WITHIN = (1, 2, 5, 10)
_SAME_LEVEL = 0.03


def print_found(console: Console, report: CheckReport) -> None:
    """Conditions, errors and how they are distributed, and the correction."""
    for name, text in _found(report):
        say(console, f"{name:<10}{text}")


def print_written(console: Console, report: CheckReport) -> None:
    """What became of the correction, and the files."""
    for name, text in _written(report):
        say(console, f"{name:<10}{text}")


def _found(report: CheckReport) -> Iterator[tuple[str, str]]:
    measured = [network.measured_ms for network in report.networks]
    runs = report.networks[0].runs
    yield "table", f"{report.lookup_path}: {report.table}"
    yield "space", f"{report.space}, {report.image_size} px, {report.num_classes} classes"
    yield (
        "measured",
        f"{len(measured)} random networks, {min(measured):.4g} to {max(measured):.4g} ms, {runs} calls each in "
        f"{report.rounds} round{'s' * (report.rounds != 1)}, {clock(report.seconds)}",
    )
    how = "normalised to the adjacent reference" if report.evened else "not normalised"
    yield "", f"interquartile range of the calls of one network: {report.spread_percent:.1f} % ({how})"
    if report.disturbance is not None:
        yield "", f"disturbed: {report.disturbance}; whole networks suffer more from that than blocks do"
    yield from _level(report)
    yield "error", errors_text(report.errors("predicted_ms"))
    yield "", f"{_within(report)}; predicted {_as(report)}"
    if report.present is not None:
        yield "", f"that correction was fitted to {report.present.description}"
    if report.fit is not None:
        fit = report.fit
        yield "fit", f"network = {terms_text(fit.terms)}, fitted to {len(measured) - report.held_out} networks"
        yield (
            "",
            f"leave-one-out error {fit.left_out_percent:.2f} % on average, uncorrected sum "
            f"{fit.left_out_plain_percent:.2f} %",
        )
        yield "held out", f"before  {errors_text(report.errors('sum_ms', HELD_OUT))}"
        if report.present is not None:
            yield "", f"as is   {errors_text(report.errors('predicted_ms', HELD_OUT))}"
        yield "", f"after   {errors_text(report.errors('corrected_ms', HELD_OUT))}"


def _written(report: CheckReport) -> Iterator[tuple[str, str]]:
    yield "result", report.verdict
    if report.table_written is not None:
        yield "", f"written to {report.table_written}; searches with it use the new figures"
    yield "plot", report.plot_file
    yield "numbers", report.numbers_file


def _level(report: CheckReport) -> Iterator[tuple[str, str]]:
    level = report.level
    reference = ""
    if level.reference_before_ms is not None:
        before = level.reference_before_ms
        reference = f"; the reference {level.reference_ms:.3g} ms, {level.reference_ms / before:.2f} x"
    yield "machine", f"{level.blocks} single blocks take {level.ratio:.2f} x their table latency{reference}"
    if report.at_level == "table":
        yield "", "measured times are divided by that, to the level of the table (--level table)"
    elif abs(level.ratio - 1) > _SAME_LEVEL:
        pace = "slower" if level.ratio > 1 else "faster"
        yield (
            "",
            f"the machine is {pace} now than when the table was measured, and a scale fitted now includes this; "
            "if it is temporary, check again with --level table",
        )


def _as(report: CheckReport) -> str:
    if report.present is None:
        return "by the uncorrected sum"
    return f"with the table's correction of {report.present.date}, {terms_text(report.present)}"


def _within(report: CheckReport) -> str:
    errors = np.array([abs(network.predicted_ms / network.measured_ms - 1) for network in report.networks])
    counts = ", ".join(f"{int((100 * errors <= bound).sum())} within {bound} %" for bound in _WITHIN)
    return f"of {len(errors)}: {counts}"


def errors_text(errors: SumErrors) -> str:
    """`median 1.2 %, worst 3.4 %, bias +0.5 %, Kendall's tau 0.95 (10 networks)`."""
    tau = f", Kendall's tau {errors.kendall_tau:.3f}" if errors.networks > 1 else ""
    return (
        f"median {errors.median_percent:.2f} %, worst {errors.worst_percent:.2f} %, bias "
        f"{errors.bias_percent:+.2f} %{tau} ({errors.networks} networks)"
    )


def terms_text(terms: Coefficients | Correction) -> str:
    """`0.957 x sum + 0.31 ms + 0.021 ms per block`."""
    text = f"{terms.scale:.4g} x sum"
    for value, words in ((terms.offset_ms, "ms"), (terms.block_ms, "ms per block")):
        if value:
            text += f" {'-' if value < 0 else '+'} {abs(value):.3g} {words}"
    return text
