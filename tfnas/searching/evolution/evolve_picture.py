"""A picture of an evolutionary search: the score of all networks against each of their figures."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from tfnas.searching.evolution.population import Population
from tfnas.searching.evolution.search_history import SearchHistory

_DPI = 120
_INCHES = 3.8
_MOST_COLUMNS = 3
_GREY, _BLUE, _RED = "#bbbbbb", "#1f5fa8", "#c23b22"
_WITHOUT_BUDGETS = ("params", "macs")

FloatArray = NDArray[np.float64]


def evolution_picture(history: SearchHistory, population: Population, limits: Mapping[str, float]) -> bytes:
    """A PNG: a panel for every budget, with all scored networks, the population, the best, and the Pareto front.

    Where ranks are combined, which all networks have only among each other, the population alone is shown.
    """
    names = [name for name in history.figure_names if name in (limits or _WITHOUT_BUDGETS)]
    columns = min(_MOST_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * rows + 0.5), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        _draw(axes, history, population, history.figure_names.index(name))
        if name in limits:
            axes.axvline(limits[name], color=_RED, linewidth=0.8, linestyle="--", label="budget")
        axes.set_xlabel(name)
        axes.set_ylabel("score" if number % columns == 0 else "")
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        if number == 0:
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(f"{history.length} networks by {population.objective}", fontsize=9, color="#444444")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, history: SearchHistory, population: Population, column: int) -> None:
    objective, best = population.objective, population.best
    members = np.array([(member.figures[column], objective.shown(member.value)) for member in population.members])
    points = members
    if not objective.by_rank:
        scored = np.isfinite(history.scores).all(1)
        totals = np.array([objective.shown(objective.total(row)) for row in history.scores[scored].tolist()])
        drawn = np.column_stack([history.figures[scored, column], totals])
        points = np.concatenate([drawn, members])
        axes.plot(*drawn.T, ".", color=_GREY, markersize=2, label="networks")
    axes.plot(*members.T, ".", color=_BLUE, markersize=3, label="population")
    front = pareto_front(points, higher_is_better=objective.shown(1.0) > 0)
    axes.plot(*front.T, color="black", linewidth=0.8, label="Pareto front")
    axes.plot(best.figures[column], objective.shown(best.value), "D", color=_RED, markersize=5, label="best")


def pareto_front(points: FloatArray, higher_is_better: bool = True) -> FloatArray:
    """Of points (n, 2) of a cost and a score those that no other beats in both, by increasing cost."""
    sign = 1.0 if higher_is_better else -1.0
    ordered = points[np.lexsort((-sign * points[:, 1], points[:, 0]))]
    best_before = np.maximum.accumulate(np.concatenate([[-math.inf], sign * ordered[:-1, 1]]))
    front: FloatArray = ordered[sign * ordered[:, 1] > best_before]
    return front
