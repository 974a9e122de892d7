"""Predicted against measured as a picture: the table as it was, and with the correction fitted now."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfnas.bench.check_report import FITTED, HELD_OUT, CheckReport

_DPI = 150
_INCHES = 5.2
_BAND = 0.05
_PARTS = ((FITTED, "fitted to", "#777777", "none"), (HELD_OUT, "held out", "#1f5fa8", "#1f5fa8"))


def check_picture(report: CheckReport) -> bytes:
    """A PNG: a mark for every network, with the spread of its calls, beside the line on which it should lie."""
    before = "plain sum" if report.present is None else f"as the table is (corrected on {report.present.date})"
    panels = [("predicted_ms", before)]
    if report.fit is not None:
        panels.append(("corrected_ms", "with the correction fitted now"))
    figure = Figure(figsize=(_INCHES * len(panels), _INCHES + 0.8), dpi=_DPI, layout="compressed")
    FigureCanvasAgg(figure)
    values = [getattr(network, name) for network in report.networks for name in dict(panels)]
    for network in report.networks:
        values += [network.measured_ms - network.spread_ms / 2, network.measured_ms + network.spread_ms / 2]
    margin = 0.04 * (max(values) - min(values)) or 0.05 * max(values)
    limits = max(0.0, min(values) - margin), max(values) + margin
    for index, (name, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _draw(axes, report, name, limits)
        errors = report.errors(name, None if report.fit is None else HELD_OUT)
        whose = "all" if report.fit is None else "held out"
        numbers = f"{whose}: median {errors.median_percent:.1f} %, worst {errors.worst_percent:.1f} %"
        axes.set_title(f"{title}\n{numbers}, bias {errors.bias_percent:+.1f} %", fontsize=10)
    figure.suptitle(
        f"{report.space}, {len(report.networks)} random networks\n{report.table}", fontsize=8, color="#444444"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, report: CheckReport, name: str, limits: tuple[float, float]) -> None:
    line = np.array(limits)
    axes.fill_between(line, line * (1 - _BAND), line * (1 + _BAND), color="#eeeeee", label=f"within {_BAND:.0%}")
    axes.plot(line, line, color="#999999", linewidth=1, label="as predicted")
    for part, words, colour, inside in _PARTS:
        chosen = [network for network in report.networks if network.part == part]
        if chosen:
            axes.errorbar(
                [getattr(network, name) for network in chosen],
                [network.measured_ms for network in chosen],
                yerr=[network.spread_ms / 2 for network in chosen],
                label=words if report.fit is not None else "networks",
                fmt="o",
                color=colour,
                markerfacecolor=inside,
                elinewidth=1,
                markersize=5,
            )
    axes.set(xlim=limits, ylim=limits, xlabel="predicted, ms", ylabel="measured, ms", aspect="equal")
    axes.legend(loc="best", fontsize=8)
