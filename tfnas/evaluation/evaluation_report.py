"""What a test found: metrics, the classes one by one, speed and its conditions; and the files with it.

The confusion matrix is drawn so that it can be read for two classes and for a thousand.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binomtest

from tfnas.evaluation.evaluation_config import PICTURE_FILE, REPORT_FILE, TABLE_FILE
from tfnas.nn.classification_metrics import ClassificationMetrics
from tfnas.utils.files import write_whole

FORMAT, VERSION = "tfnas-test", 1
_CONFIDENCE = 0.95
_MOST_NUMBERED = 25  # classes up to which every count is written
_MOST_NAMED = 100  # classes up to which every name is written
_LONGEST_NAME = 20
_DPI = 150
_DARK = 0.5


@dataclass(frozen=True)
class ClassResult:
    """One class: how many images, how many of them are right, and what the others are most often confused with."""

    number: int
    name: str
    images: int
    correct: int
    confused_with: str | None
    confused: int

    @property
    def accuracy(self) -> float | None:
        """Percent right; None for a class without images."""
        return 100 * self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Throughput:
    """Images per second: of the network alone, and with reading and preparing the images."""

    network: float
    with_loading: float
    batch_size: int
    device: str
    threads: int
    workers: int
    kind: str = "float32"
    """The numbers that the network computes in, such as int8."""


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """All that a test found. `confusion[i, j]` is how many images of class i were taken for class j."""

    network: str
    images: str
    class_names: tuple[str, ...]
    image_size: int
    params: int
    macs: int
    metrics: ClassificationMetrics
    confusion: NDArray[np.int64]
    throughput: Throughput
    folder: Path
    """Where test.json, confusion.png and per_class.csv are."""
    warning: str | None = None
    """Why the network's answers on this processor may be wrong."""

    @property
    def scores(self) -> ClassificationMetrics:
        """The metrics, by the name that the documentation once gave; raises a DeprecationWarning."""
        warnings.warn("EvaluationReport.scores is now EvaluationReport.metrics", DeprecationWarning, stacklevel=2)
        return self.metrics

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % confidence interval of top-1 in percent (Wilson, 1927): what other images of this kind would give."""
        correct = int(np.trace(self.confusion))
        found = binomtest(correct, self.metrics.images).proportion_ci(_CONFIDENCE, method="wilson")
        return 100 * float(found.low), 100 * float(found.high)

    def classes(self) -> list[ClassResult]:
        """The classes in the network's order. Of confusions equally frequent the first class counts."""
        results = []
        for number, name in enumerate(self.class_names):
            taken_for = self.confusion[number].copy()
            images, correct = int(taken_for.sum()), int(taken_for[number])
            taken_for[number] = 0
            worst = int(taken_for.argmax())
            other = self.class_names[worst] if taken_for[worst] else None
            results.append(ClassResult(number, name, images, correct, other, int(taken_for[worst])))
        return results

    def to_json(self) -> dict[str, Any]:
        """Every number, for test.json: accuracies in percent, loss in nats, throughput in images per second."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "network": self.network,
            "images": self.images,
            "num_images": self.metrics.images,
            "num_classes": len(self.class_names),
            "image_size": self.image_size,
            "parameters": self.params,
            "macs": self.macs,
            "top1": self.metrics.top1,
            "top1_interval_95": list(self.top1_interval),
            "top5": self.metrics.top5,
            "loss": self.metrics.loss,
            "warning": self.warning,
            "throughput": asdict(self.throughput),
            "classes": [{**asdict(found), "accuracy": found.accuracy} for found in self.classes()],
            "confusion": self.confusion.tolist(),
        }

    def write(self) -> None:
        """Write test.json, per_class.csv and confusion.png to the folder, each whole or not at all."""
        write_whole(self.folder / REPORT_FILE, json.dumps(self.to_json(), indent=1) + "\n")
        write_whole(self.folder / TABLE_FILE, per_class_csv(self.classes()))
        write_whole(self.folder / PICTURE_FILE, confusion_plot(self))


def per_class_csv(classes: Sequence[ClassResult]) -> str:
    """The classes as a CSV table with a header; accuracy in percent, empty where there are no images."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "class", "images", "correct", "accuracy", "confused_with", "confused"])
    for found in classes:
        accuracy = "" if found.accuracy is None else f"{found.accuracy:.4f}"
        row = [found.number, found.name, found.images, found.correct, accuracy, found.confused_with or ""]
        writer.writerow([*row, found.confused])
    return text.getvalue()


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
    axes.set_xlabel("predicted as", fontsize=size)
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
        # A name in a script that the font lacks is drawn as boxes; the other files contain it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _write_names(axes: Axes, names: tuple[str, ...], inches: float) -> None:
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    size = float(np.clip(50 * inches / len(names), 4, 9))
    upright = max(len(name) for name in short) > 2
    # Not as formulas: a name may contain a dollar sign.
    axes.set_xticks(range(len(names)), short, fontsize=size, rotation=90 if upright else 0, parse_math=False)
    axes.set_yticks(range(len(names)), short, fontsize=size, parse_math=False)


def _mark_cells(axes: Axes, shares: NDArray[np.float64], norm: PowerNorm) -> None:
    """Draw what is not 0 larger than its cell, which is a pixel or two: the darkest last, on top."""
    rows, columns = np.nonzero(shares)
    values = shares[rows, columns]
    order = np.argsort(values)
    place = (columns[order], rows[order])
    axes.scatter(*place, c=values[order], s=5, marker="s", linewidths=0, cmap="Blues", norm=norm)


def _write_counts(axes: Axes, confusion: NDArray[np.int64], depth: NDArray[np.float64]) -> None:
    """Write every count that is not 0, light on dark."""
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if depth[row, column] > _DARK else "black"
        size = 8 if confusion[row, column] < 1000 else 6
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=size)
