"""The confusion matrix as a picture that can be read for two classes and for a thousand."""

from __future__ import annotations

import io
import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from tfnas.evaluation.evaluation_report import EvaluationReport

_MOST_NUMBERED = 25  # classes up to which every count is written
_MOST_NAMED = 100  # classes up to which every name is written
_LONGEST_NAME = 20
_DPI = 150
_DARK = 0.5


def confusion_plot(report: EvaluationReport) -> bytes:
    """A PNG: a row for every class, and in it the share of its images that was taken for each class.

    Small shares are drawn darker than in proportion, so that single mistakes are seen among many images. Counts are
    written for up to 25 classes, names for up to 100; beyond, the axes give the numbers of classes, and what is not 0
    is drawn larger than its cell.
    """
    confusion = report.confusion
    count = len(confusion)
    shares = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    inches = float(np.clip(3 + 0.32 * count, 5.5, 14))
    figure = Figure(figsize=(inches + 1, inches), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    norm = PowerNorm(0.5, vmin=0, vmax=100)
    drawn = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    size = float(np.clip(inches, 9, 14))
    bar = figure.colorbar(drawn, ax=axes, ticks=[0, 1, 5, 10, 25, 50, 75, 100], shrink=0.8)
    bar.set_label("% of the class's images", fontsize=size)
    axes.set_xlabel("taken for", fontsize=size)
    axes.set_ylabel("class", fontsize=size)
    metrics = report.metrics
    axes.set_title(f"top-1 {metrics.top1:.2f} % of {metrics.images:,} images, {count} classes", fontsize=size + 1)
    if count <= _MOST_NAMED:
        _write_names(axes, report.class_names, inches)
    else:
        _mark_cells(axes, shares, norm)
    if count <= _MOST_NUMBERED:
        _write_counts(axes, confusion, np.asarray(norm(shares)))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; it stands in the other files.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _write_names(axes: Axes, names: tuple[str, ...], inches: float) -> None:
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    size = float(np.clip(50 * inches / len(names), 4, 9))
    upright = max(len(name) for name in short) > 2
    # Not as formulas: a name may hold a dollar sign.
    axes.set_xticks(range(len(names)), short, fontsize=size, rotation=90 if upright else 0, parse_math=False)
    axes.set_yticks(range(len(names)), short, fontsize=size, parse_math=False)


def _mark_cells(axes: Axes, shares: np.ndarray, norm: PowerNorm) -> None:
    """Draw what is not 0 larger than its cell, which is a pixel or two: the darkest last, on top."""
    rows, columns = np.nonzero(shares)
    values = shares[rows, columns]
    order = np.argsort(values)
    place = (columns[order], rows[order])
    axes.scatter(*place, c=values[order], s=5, marker="s", linewidths=0, cmap="Blues", norm=norm)


def _write_counts(axes: Axes, confusion: np.ndarray[tuple[int, int], np.dtype[np.int64]], depth: np.ndarray) -> None:
    """Write every count that is not 0, light on dark."""
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if depth[row, column] > _DARK else "black"
        size = 8 if confusion[row, column] < 1000 else 6
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=size)
