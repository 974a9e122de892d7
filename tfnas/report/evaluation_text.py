"""The output of a test, from its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from tfnas.evaluation.evaluation_config import PICTURE_FILE, REPORT_FILE, TABLE_FILE
from tfnas.evaluation.evaluation_report import ClassResult, EvaluationReport
from tfnas.utils.text import clock, say, short

_MOST_ROWS = 30
_WORST = 20
_LONGEST_NAME = 28


def print_evaluation(console: Console, report: EvaluationReport) -> None:
    """Metrics, the classes in a table (the worst of many), and speed."""
    for name, text in _scores(report):
        say(console, f"{name:<12}{text}")
    console.print()
    classes = report.classes()
    rows, remark = _rows(classes, report.folder)
    for line in _table(rows):
        say(console, line)
    console.print()
    for name, text in [*remark, *_speed(report)]:
        say(console, f"{name:<12}{text}")


def print_files(console: Console, report: EvaluationReport) -> None:
    """Where the files are, once they are written."""
    for name, text in _files(report.folder):
        say(console, f"{name:<12}{text}")


def progress_line(done: int, count: int, seconds: float) -> str:
    """Progress of a test, and the time left."""
    return f"{done:,} of {count:,} images, {clock(seconds * (count - done) / done)} left"


def _scores(report: EvaluationReport) -> Iterator[tuple[str, str]]:
    metrics, (low, high) = report.metrics, report.top1_interval
    size, count = report.image_size, len(report.class_names)
    yield "network", report.network
    yield "", f"{short(report.params)} parameters, {short(report.macs)} MACs at {size} x {size}, {count} classes"
    yield "images", f"{metrics.images:,}: {report.images}"
    yield "top-1", f"{metrics.top1:.2f} % (95 % confidence {low:.2f} to {high:.2f} %)"
    among = "" if count > 5 else f" (every image: there are only {count} classes)"
    yield "top-5", f"{metrics.top5:.2f} %{among}"
    yield "loss", f"{metrics.loss:.4f} (mean cross entropy)"


def _rows(classes: Sequence[ClassResult], folder: Path) -> tuple[list[ClassResult], list[tuple[str, str]]]:
    """The classes to show, and a remark on those that are not."""
    remark = []
    empty = [found for found in classes if not found.images]
    if empty:
        remark.append(("no images", f"{len(empty)} of {len(classes)} classes, the first is {empty[0].name}"))
    if len(classes) <= _MOST_ROWS:
        return list(classes), remark
    shown = sorted(classes, key=lambda found: 101.0 if found.accuracy is None else found.accuracy)[:_WORST]
    remark.append(("classes", f"the {len(shown)} worst of {len(classes)}; all are in {folder / TABLE_FILE}"))
    return shown, remark


def _table(classes: Sequence[ClassResult]) -> Iterator[str]:
    """Lines of aligned columns."""
    names = [_shortened(found.name) for found in classes]
    width = max(cell_len(name) for name in ["class", *names])
    yield f"{_padded('class', width)}  images  correct  accuracy  most often confused with"
    for name, found in zip(names, classes, strict=True):
        accuracy = "-" if found.accuracy is None else f"{found.accuracy:.2f} %"
        other = "" if found.confused_with is None else f"{_shortened(found.confused_with)} ({found.confused})"
        line = f"{_padded(name, width)}  {found.images:>6}  {found.correct:>7}  {accuracy:>8}  {other}"
        yield line.rstrip()


def _speed(report: EvaluationReport) -> Iterator[tuple[str, str]]:
    speed = report.throughput
    conditions = f"{speed.kind}, batch {speed.batch_size}, {speed.device}, threads={speed.threads}"
    yield "speed", f"{speed.network:,.1f} images/s alone ({conditions})"
    yield "", f"{speed.with_loading:,.1f} images/s with loading (workers={speed.workers})"


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for name, file in (("numbers", REPORT_FILE), ("classes", TABLE_FILE), ("picture", PICTURE_FILE)):
        yield name, str(folder / file)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _padded(text: str, width: int) -> str:
    """Filled up to a width in a terminal, where some characters take two places."""
    return text + " " * (width - cell_len(text))
