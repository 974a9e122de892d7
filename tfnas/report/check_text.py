"""Report of a table check on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.console import Console

from tfnas.bench.check_report import HELD_OUT, CheckReport
from tfnas.latency.correction_fit import Coefficients
from tfnas.latency.table_contents import Correction, SumErrors
from tfnas.utils.text import clock, say

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
