"""The results as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOURS = ("#999999", "#1f5fa8", "#c23b22", "#2b8a3e", "#8a5fbf", "#b8860b")


def picture(found: Mapping[str, Any], title: str) -> bytes:
    """A PNG. Left: test loss of every network by group, its trainings small. Right: inherited top-1 against it."""
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _networks(left, found)
    _inherited(right, found)
    figure.suptitle(title, fontsize=9, color="#444444")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _networks(axes: Axes, found: Mapping[str, Any]) -> None:
    names = list(found["groups"])
    for row, name in enumerate(names):
        colour = _COLOURS[row % len(_COLOURS)]
        losses = [network["loss"] for network in found["networks"] if network["group"] == name]
        offsets = np.linspace(-0.25, 0.25, len(losses)) if len(losses) > 1 else [0.0]
        for runs, offset in zip(losses, offsets, strict=True):
            axes.plot(runs, [row + offset] * len(runs), ".", color=colour, markersize=3, alpha=0.5)
            axes.plot(float(np.mean(runs)), row + offset, "o", color=colour, markersize=5)
        interval = found["groups"][name]["loss"]
        axes.plot([interval["low"], interval["high"]], [row + 0.38] * 2, "-", color=colour, linewidth=2)
    axes.axvline(found["groups"]["random"]["loss"]["value"], color="#999999", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("test loss (bars: 95 % of the mean)")


def _inherited(axes: Axes, found: Mapping[str, Any]) -> None:
    losses = [float(np.mean(item["loss"])) for item in found["networks"] if item["group"] == "random"]
    entry = found["supernet"]
    for number, supernet in enumerate(entry["searches"]):
        colour = _COLOURS[1 + number % (len(_COLOURS) - 1)]
        axes.plot(supernet["inherited"], losses, "o", color=colour, markersize=4, label=f"search {number}")
    tau = entry["loss"].get("inherited")
    if tau is not None:
        axes.set_title("tau {value:+.2f} ({low:+.2f} to {high:+.2f})".format(**tau["tau"]), fontsize=9)
        axes.legend(fontsize=7, frameon=False)
    axes.set_xlabel("top-1 with inherited weights, %")
    axes.set_ylabel("test loss, trained from scratch")
