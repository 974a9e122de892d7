"""What a person sees of an export and of a test, from their reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from tfnas.evaluation.evaluation_config import PICTURE_FILE, REPORT_FILE, TABLE_FILE
from tfnas.evaluation.evaluation_report import ClassResult, EvaluationReport
from tfnas.export.export_config import DYNAMIC, NEEDS, QUANTIZED, REPORT_SUFFIX
from tfnas.export.export_report import ExportReport, OutputCheck
from tfnas.runs.intended import intended_for
from tfnas.utils.text import clock, command_line, say, short


def print_export(console: Console, report: ExportReport) -> None:
    """The file, what goes in and out, how close it is to PyTorch, how accurate and how fast."""
    for name, text in _lines(report):
        say(console, f"{name:<10}{text}")
    say(console, f"{'latency':<10}median and interquartile range, interleaved")
    for latency in report.latency:
        numbers = f"{latency.median_ms:.3f} ms +- {latency.spread_ms:.3f} ms"
        conditions = f"threads={latency.threads}, {latency.runs} runs, {latency.device}"
        size = f"batch {latency.batch_size}"
        say(console, f"{'':<10}{numbers}, {latency.kind}, {size}, {latency.runtime}, {conditions}")
    for warning in report.warnings:
        say(console, f"{'warning':<10}{warning}")
    say(console, f"{'report':<10}{report.file}{REPORT_SUFFIX}")
    if report.format == "onnx":
        say(console, f"{'next':<10}{command_line('latency certify', report.file)}{_certify_flags(report)}")


def _certify_flags(report: ExportReport) -> str:
    """The flags that test the file against its network's target, as far as its run records it."""
    made = intended_for(Path(report.model), report.architecture)
    if made is not None and report.batch in (DYNAMIC, str(made.batch_size)):
        return f" {made.flags}"
    return "" if report.batch in (DYNAMIC, "1") else f" --batch {report.batch}"


def _lines(report: ExportReport) -> Iterator[tuple[str, str]]:
    form = "torch.export" if report.opset is None else f"ONNX opset {report.opset}"
    size = report.image_size
    count = "N" if report.batch == DYNAMIC else report.batch
    yield "file", report.file
    yield "", f"{form}, {report.kind}, {_kilobytes(report.file_bytes)}{_instead(report)}"
    yield "network", f"{short(report.parameters)} parameters, {report.num_classes} classes, data {report.data}"
    yield "input", f"images, float32 {count} x 3 x {size} x {size}: RGB in 0..1, normalised inside"
    yield "output", f"logits, float32 {count} x {report.num_classes}"
    if report.calibration is not None:
        yield "int8", f"calibrated on {report.calibration.count} {report.calibration.images}"
    if report.kind in NEEDS:
        yield "needs", f"{NEEDS[report.kind]}: incorrect on other x86 processors"
    for check in report.checks:
        yield "check", _check_text(check)
    if report.accuracy is not None:
        found = report.accuracy
        change = f"drop {found.drop_points:.2f} points" if found.drop_points > 0 else f"gain {-found.drop_points:.2f}"
        words = "no drop" if found.drop_points == 0 else change
        before = f"{found.float32_top1:.2f} % in float32 ({found.float32_runtime})"
        yield "accuracy", f"top-1 {found.file_top1:.2f} % against {before}: {words}"
        if found.reference_top1 is not None:
            yield "", f"{found.reference_top1:.2f} % without 8-bit arithmetic, the same on every processor"
        yield "", f"on {found.count} {found.images}"


def _instead(report: ExportReport) -> str:
    return "" if report.float32_onnx_bytes is None else f" (float32 {_kilobytes(report.float32_onnx_bytes)})"


def _check_text(check: OutputCheck) -> str:
    sizes = " and ".join(", ".join(str(size) for size in check.batch_sizes).rsplit(", ", 1))
    allowed = "" if check.tolerance is None else f", {check.tolerance:.2g} allowed"
    by = "" if check.instructions is None else f" by {check.instructions}"
    if check.instructions is None and check.kind in QUANTIZED:
        by = " without 8-bit arithmetic"
    return (
        f"{check.kind}{by} against PyTorch float32: largest difference {check.max_abs_difference:.2g} of logits up to "
        f"{check.largest_logit:.3g}{allowed}; same top-1 for {100 * check.same_top1:.2f} %; on {check.count} "
        f"{check.images}, in batches of {sizes}"
    )


def _kilobytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10**6 else f"{count / 1e3:.1f} kB"


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
