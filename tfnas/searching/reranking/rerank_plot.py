"""Every measure against accuracy as a picture: does a better score go with a better network, at the same latency?"""

from __future__ import annotations

import io
import math

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from tfnas.searching.reranking.rerank_config import INHERITED
from tfnas.searching.reranking.rerank_result import Reranking
from tfnas.searching.reranking.score_calibration import MACS

_DPI = 150
_INCHES = 3.6
_MOST_COLUMNS = 3
_GREY, _BLUE, _RED = "#999999", "#1f5fa8", "#c23b22"


def rerank_picture(result: Reranking) -> bytes:
    """A PNG: a panel for every measure, with trained accuracy upwards if some were trained, else the inherited one."""
    calibration = result.calibration
    inherited = result.measure(INHERITED).values
    accuracy = dict(enumerate(inherited)) if calibration is None else calibration.top1_of
    words = "top-1 with inherited weights, %" if calibration is None else "top-1 trained from scratch, %"
    panels = [(item.name, item.values) for item in result.measures if calibration is not None or item.name != INHERITED]
    panels += [(MACS, tuple(float(count.macs) for count in result.counts))]
    if "params" not in [name for name, _ in panels]:
        panels += [("params", tuple(float(count.params) for count in result.counts))]
    columns = 2 if len(panels) == 4 else min(_MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * rows + 0.5), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for index, (name, values) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw(axes, result, values, accuracy)
        axes.set_xlabel(_axis_words(result, name))
        axes.set_ylabel(words if index % columns == 0 else "")
        axes.set_title(_title(result, name), fontsize=9)
        if name in (MACS, "params", "flops"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        if index == 0:
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    target = result.subject.cost.quantity(result.subject.target, 6)
    count = f"{len(accuracy)} of {len(result.candidates)}" if calibration is not None else str(len(accuracy))
    figure.suptitle(f"{count} candidates within 0.5 % below {target}", fontsize=9, color="#444444")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, result: Reranking, values: tuple[float, ...], accuracy: dict[int, float]) -> None:
    first = result.order[0] if result.used else None
    others = [number for number in accuracy if number not in (0, first)]
    axes.plot(
        [values[n] for n in others], [accuracy[n] for n in others], "o", color=_GREY, markersize=4, label="candidates"
    )
    if first is not None and first != 0 and first in accuracy:
        axes.plot(values[first], accuracy[first], "s", color=_RED, markersize=6, label="first of the ranking")
    axes.plot(values[0], accuracy[0], "D", color=_BLUE, markersize=6, label="derived")


def _axis_words(result: Reranking, name: str) -> str:
    measure = next((item for item in result.measures if item.name == name), None)
    if measure is None or name == INHERITED:
        return {INHERITED: "inherited top-1, %", MACS: "MACs", "params": "parameters"}[name]
    return f"{name} ({'higher' if measure.higher_is_better else 'lower'} is better)"


def _title(result: Reranking, name: str) -> str:
    if result.calibration is None:
        return ""
    verdict = next(verdict for verdict in result.calibration.verdicts if verdict.measure == name)
    if verdict.tau is None:
        return "tau is not defined"
    return f"tau {verdict.tau.value:+.2f} ({verdict.tau.low:+.2f} to {verdict.tau.high:+.2f})"
