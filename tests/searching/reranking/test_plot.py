"""The picture: a panel for every measure, and what it shows with a calibration and without."""

from __future__ import annotations

import io
import random

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tfnas.searching.reranking.rerank_report import rerank_picture
from tfnas.searching.reranking.train_from_scratch import TrainedTask


@pytest.fixture
def drawn(monkeypatch):
    """Draws a result, and returns the figure behind the picture."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: figures.append(figure) or save(figure, *a, **k))

    def draw(result):
        with Image.open(io.BytesIO(rerank_picture(result))) as picture:
            picture.load()
            assert picture.format == "PNG" and min(picture.size) > 500
        return figures.pop()

    return draw


def points(axes):
    """All that a panel shows, as (x, y)."""
    return sorted((float(x), float(y)) for line in axes.lines for x, y in line.get_xydata())


def in_rows(rows, across, upwards):
    return sorted((float(row[across]), row[upwards]) for row in rows)


def test_without_calibration_against_inherited_accuracy(reranked, drawn):
    result = reranked()
    rows, panels = result.rows(), drawn(result).axes
    assert [axes.get_xlabel() for axes in panels] == ["flops (higher is better)", "params (higher is better)", "MACs"]
    for axes, column in zip(panels, ("macs", "params", "macs"), strict=True):
        assert points(axes) == in_rows(rows, column, "inherited_top1")
        assert axes.get_title() == ""
    assert panels[0].get_ylabel() == "top-1 with inherited weights, %"


def test_with_calibration_against_trained_accuracy(reranked, drawn, monkeypatch):
    monkeypatch.setattr(TrainedTask, "compute", lambda task: random.Random(task.architecture).uniform(50, 60))
    result = reranked(scores="entropy", calibrate=6, calibrate_images=200)
    figure, trained = drawn(result), [row for row in result.rows() if row["trained_top1"] is not None]
    assert "6 of 8 candidates" in figure.get_suptitle()
    words = ["entropy (higher is better)", "inherited top-1, %", "MACs", "parameters"]
    assert [axes.get_xlabel() for axes in figure.axes] == words
    for axes, column in zip(figure.axes, ("entropy", "inherited_top1", "macs", "params"), strict=True):
        assert points(axes) == in_rows(trained, column, "trained_top1")
    tau = {verdict.measure: verdict.tau for verdict in result.calibration.verdicts}["macs"]
    assert figure.axes[2].get_title() == f"tau {tau.value:+.2f} ({tau.low:+.2f} to {tau.high:+.2f})"
