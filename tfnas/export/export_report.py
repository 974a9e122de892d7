"""What is known of an exported file: how close it is to PyTorch, how accurate, how fast, how large."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json_file
from tfnas.export.export_config import REPORT_SUFFIX

FORMAT = "tfnas-export"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Check:
    """Logits of a graph against those of the trained network in PyTorch, float32, on the same images."""

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


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What int8 was calibrated on, and how."""

    images: str
    count: int
    method: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median and interquartile spread of calls, and what they were measured under."""

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
    """An exported file and everything that was found out about it."""

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
    checks: tuple[Check, ...]
    accuracy: Accuracy | None
    calibration: Calibration | None
    latency: tuple[Latency, ...]
    warnings: tuple[str, ...]
    """What its user should know before shipping it."""
    versions: dict[str, str]
    date: str

    def to_json(self) -> dict[str, Any]:
        """The report as the JSON file beside the exported one holds it."""
        return {"format": FORMAT, "version": VERSION, "export": dataclasses.asdict(self)}


def model_behind(path: Path) -> Path:
    """The model that a file was exported from, as the report beside it says; else a file that lies where it does."""
    try:
        document: Any = load_json_file(Path(f"{path}{REPORT_SUFFIX}"))
        model = document["export"]["model"]
    except (OSError, InputError, LookupError, TypeError):
        return path
    return Path(model) if isinstance(model, str) and "\0" not in model else path
