"""What is known about an exported file: how close it is to PyTorch, its accuracy, latency and size, and warnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json_file
from tfnas.export.export_config import REPORT_SUFFIX

FORMAT = "tfnas-export"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class OutputCheck:
    """Logits of a graph compared with those of the trained network in PyTorch, float32, on the same images."""

    kind: str
    """Numbers the graph computes in: float32, float16, bfloat16, int8 or int8_vnni."""
    instructions: str | None
    """What of this processor multiplied bytes (`avx512_vnni`); None where that makes no difference, in graphs of floats
    and in the reference of an 8-bit file, which computes its quantised numbers without 8-bit arithmetic."""
    images: str
    count: int
    batch_sizes: tuple[int, ...]
    max_abs_difference: float
    largest_logit: float
    same_top1: float
    """Share of images with the same top class, 0 to 1."""
    tolerance: float | None
    """Difference that float32 must not exceed; None for coarser numbers."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 in percent on the same labelled images; `drop_points` is lost from float32 to the file.

    `reference_top1` is an 8-bit file's without 8-bit arithmetic: what it gives on every processor that is exact.
    """

    images: str
    count: int
    float32_top1: float
    float32_runtime: str
    file_top1: float
    drop_points: float
    reference_top1: float | None = None

    @property
    def reference_drop_points(self) -> float | None:
        """Points lost from float32 to the file on every processor that is exact; None if that was not measured."""
        return None if self.reference_top1 is None else self.float32_top1 - self.reference_top1


@dataclass(frozen=True, kw_only=True)
class Int8Calibration:
    """What int8 was calibrated on, and how."""

    images: str
    count: int
    method: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median and interquartile range of calls, and the conditions of the measurement."""

    kind: str
    runtime: str
    batch_size: int
    threads: int
    device: str
    median_ms: float
    spread_ms: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """An exported file and everything that is known about it."""

    file: str
    file_bytes: int
    format: str
    kind: str
    image_size: int
    batch: str
    opset: int | None
    num_classes: int
    model: str
    architecture: str
    data: str
    parameters: int
    float32_onnx_bytes: int | None
    """Size that the file would have in float32; for int8 only."""
    instruction_sets: tuple[str, ...]
    """Those of the processor that it was checked and timed on."""
    checks: tuple[OutputCheck, ...]
    accuracy: Accuracy | None
    calibration: Int8Calibration | None
    latency: tuple[Latency, ...]
    warnings: tuple[str, ...]
    """What its user should know before deploying it."""
    versions: dict[str, str]
    date: str

    def to_json(self) -> dict[str, Any]:
        """As in the JSON file next to the exported one."""
        return {"format": FORMAT, "version": VERSION, "export": dataclasses.asdict(self)}


def model_behind(path: Path) -> Path:
    """The model that a file was exported from, by the report next to it; without one, the file itself."""
    try:
        document: Any = load_json_file(Path(f"{path}{REPORT_SUFFIX}"))
        model = document["export"]["model"]
    except (OSError, InputError, LookupError, TypeError):
        return path
    return Path(model) if isinstance(model, str) and "\0" not in model else path


FEWEST_IMAGES = 32
MOST_DROP_POINTS = 1.0
LEAST_SAME_TOP1 = 0.97
"""An 8-bit file is right where top-1 falls by at most so many points and so large a share of images keeps its class."""


def shipping_warnings(
    checks: Sequence[OutputCheck],
    accuracy: Accuracy | None,
    latency: Sequence[Latency],
    file_bytes: int,
    float32_bytes: int,
    calibration_images: int,
) -> tuple[str, ...]:
    """What the user of an 8-bit file should know before deploying it, and what to do; nothing if all is well.

    The checks are those of the float32 graph, of the file on this processor and of the file without 8-bit arithmetic.
    """
    float32, here, reference = checks
    here_drop = true_drop = None
    if accuracy is not None:
        here_drop, true_drop = accuracy.drop_points, accuracy.reference_drop_points
    found = []
    if calibration_images < FEWEST_IMAGES:
        found.append(
            f"int8 was calibrated on {calibration_images} images only, which may not cover the range of activations: "
            f"use at least {FEWEST_IMAGES}, representative of the deployment data (--calibration_images, --img_root)"
        )
    if not _is_right(reference.same_top1, true_drop):
        found.append(
            "8 bits are too few for this network as it was calibrated: "
            f"{_loss_text(reference.same_top1, true_drop)}, on every processor. Calibrate on more images, "
            "representative of the deployment data (--calibration_images, --img_root), or deploy float32 "
            "(omit --quantize)"
        )
    elif not _is_right(here.same_top1, here_drop):
        found.append(
            f"the file is correct, but this processor ({here.instructions}) computes it incorrectly: "
            f"{_loss_text(here.same_top1, here_drop)}. {_cause(here.kind)}"
        )
    is_lossy = accuracy.drop_points > 0 if accuracy is not None else here.same_top1 < float32.same_top1
    if file_bytes >= float32_bytes and is_lossy:
        found.append(
            f"the file is larger than in float32 ({file_bytes} bytes, {float32_bytes} in float32) and less accurate, "
            f"{_speed_text(latency, here.kind)}: deploy float32 (omit --quantize) unless you need its speed"
        )
    return tuple(found)


def _is_right(same_top1: float, drop_points: float | None) -> bool:
    return same_top1 >= LEAST_SAME_TOP1 and (drop_points is None or drop_points <= MOST_DROP_POINTS)


def _loss_text(same_top1: float, drop_points: float | None) -> str:
    drop = "" if drop_points is None else f", and top-1 falls by {drop_points:.2f} points"
    return f"{100 * same_top1:.2f} % of the images keep the class that float32 gives them{drop}"


def _cause(kind: str) -> str:
    if kind == "int8_vnni":
        return "int8_vnni is for x86 with VNNI and for Arm; --quantize int8 is correct on every processor"
    return "Its weights are such that no sum can overflow, so the runtime is at fault: try another version of it"


def _speed_text(latency: Sequence[Latency], kind: str) -> str:
    """By how much it is faster or slower than float32 in the same runtime, for each batch size."""
    return " and ".join(_ratios(latency, kind)) + " of float32's time"


def _ratios(latency: Sequence[Latency], kind: str) -> Iterator[str]:
    for own in latency:
        for other in latency:
            alike = (own.batch_size, own.runtime) == (other.batch_size, other.runtime)
            if alike and own.kind == kind and other.kind == "float32":
                yield f"at batch {own.batch_size} in {own.median_ms / other.median_ms:.2f}"
