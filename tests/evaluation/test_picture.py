"""The confusion picture: its colours say which cells are not 0, for few classes and for many."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfnas.evaluation.evaluation_report import EvaluationReport, Throughput, confusion_plot
from tfnas.nn.classification_metrics import ClassificationMetrics


def drawn(confusion, names):
    """The picture's pixels."""
    images = int(confusion.sum())
    metrics = ClassificationMetrics(100 * float(np.trace(confusion)) / images, 100.0, 1.0, images)
    speed = Throughput(1.0, 1.0, 1, "none", 1, 0)
    report = EvaluationReport("network", "images", names, 8, 1, 1, metrics, confusion, speed, Path())
    with Image.open(io.BytesIO(confusion_plot(report))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("count", [2, 12, 300])
def test_what_is_not_zero_is_dark(count):
    """All of class 0 right, all of the last class taken for class 0: corners dark, dark, light, light."""
    confusion = np.zeros((count, count), dtype=np.int64)
    confusion[0, 0] = confusion[count - 1, 0] = 9
    pixels = drawn(confusion, tuple(f"name $x_{number}" for number in range(count)))
    blue = pixels[..., 2] - pixels[..., 0]
    dark = (blue > 60) & (pixels[..., 0] < 40)  # the full tone of the colours
    inside = dark[:, : int(dark.shape[1] * 0.75)]  # without the bar of colours
    rows, columns = np.nonzero(inside)
    assert len(rows) > 8
    lower = rows > rows.mean()
    assert np.ptp(columns) <= np.ptp(columns[lower]) + 2  # both in one column,
    assert rows.max() - rows.min() > 0.4 * len(pixels)  # at its two ends
    assert abs(lower.mean() - 0.5) < 0.1


def test_names_without_glyphs_are_drawn_without_a_warning():
    drawn(np.eye(3, dtype=np.int64), ("猫", "$$$ \\frac{", "a" * 90))
