"""`export_model`: a trained network becomes a file to deploy, which is checked and timed before it gets its name."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch

from tfnas.core import __version__
from tfnas.export.export_checks import CHECK_BATCH, ExportFindings, ExportJob, examine
from tfnas.export.export_config import NEEDS, REPORT_SUFFIX, ExportConfig
from tfnas.export.export_images import open_export_images
from tfnas.export.export_report import ExportReport, Int8Calibration, shipping_warnings
from tfnas.export.exported_files import (
    WEIGHTS,
    json_text,
    method_text,
    onnx_bytes,
    quantized_bytes,
    torch_export_bytes,
    trace,
)
from tfnas.runs.named_model import open_named_model
from tfnas.utils.devices import instruction_sets, torch_threads
from tfnas.utils.files import check_writable, staged, write_whole
from tfnas.utils.onnx_export import OPSET


def export_model(
    config: ExportConfig,
    *,
    on_step: Callable[[str], None] = lambda _: None,
    on_report: Callable[[ExportReport], None] = lambda _: None,
) -> ExportReport:
    """Write a trained network as one file, check it by running it, time it, and write the report next to it.

    `on_step` is called with the name of each step, `on_report` with the report, before the file gets its name.

    Raises:
        InputError: There is no such model, no such folder, or int8 is wanted and there are no real images.
        RunFailed: The file does not give what the network gives, or cannot be written, which is tried before the work.
            What stood there before stays.
    """
    model = open_named_model(config, config.weights).model
    target = config.target()
    report_file = Path(f"{target}{REPORT_SUFFIX}")
    for path in (target, report_file):
        check_writable(path)
    preprocessing = model.preprocessing.at_size(config.image_size)
    job = ExportJob(config, target, model, preprocessing, open_export_images(config, model, preprocessing))
    with torch_threads(config.threads):
        on_step(f"tracing the network for {config.format}")
        plain = _unquantized(job)
        data = plain
        if config.quantize:
            assert job.images.calibration is not None
            on_step(f"calibrating int8 on {len(job.images.calibration)} images")
            batch_size = config.batch_size or CHECK_BATCH
            data = quantized_bytes(plain, config.quantize, job.images.calibration, batch_size, _texts(job))
        with staged(target, data) as file:
            on_step("checking and timing the file")
            report = _report(job, examine(job, file, data, plain), data, plain)
            on_report(report)
    write_whole(report_file, json.dumps(report.to_json(), indent=2) + "\n")
    return report


def _unquantized(job: ExportJob) -> bytes:
    config = job.config
    program = trace(job.model, job.preprocessing, config.dtype, config.batch_size)
    if config.format == "torch_export":
        return torch_export_bytes(program, _facts(job))
    return onnx_bytes(program, _texts(job), config.opset or OPSET)


def _facts(job: ExportJob) -> dict[str, Any]:
    """What a user of the file must know."""
    quantized = {} if job.config.quantize is None else {"weights": WEIGHTS[job.config.quantize]}
    if job.config.kind in NEEDS:
        quantized["needs"] = NEEDS[job.config.kind]
    return {
        "class_names": list(job.model.class_names),
        "image_size": job.preprocessing.image_size,
        "preprocessing": job.preprocessing.to_json(),
        "architecture": job.model.architecture.to_text(),
        "data": job.model.data,
        "kind": job.config.kind,
        **quantized,
        "tfnas_version": __version__,
    }


def _texts(job: ExportJob) -> dict[str, str]:
    """The same for ONNX, whose metadata are texts: JSON where it is not text already."""
    return {name: value if isinstance(value, str) else json_text(value) for name, value in _facts(job).items()}


def _report(job: ExportJob, found: ExportFindings, data: bytes, plain: bytes) -> ExportReport:
    """The file, of which `data` are the bytes and `plain` those before any quantisation, and what was found."""
    config, model = job.config, job.model
    calibration = _calibration(job)
    warnings: tuple[str, ...] = ()
    if calibration is not None:
        warnings = shipping_warnings(
            found.checks, found.accuracy, found.latency, len(data), len(plain), calibration.count
        )
    return ExportReport(
        file=str(job.target),
        file_bytes=len(data),
        format=config.format,
        kind=config.kind,
        image_size=job.preprocessing.image_size,
        batch=config.batch,
        opset=(config.opset or OPSET) if config.format == "onnx" else None,
        num_classes=len(model.class_names),
        model=config.place,
        architecture=model.architecture.to_text(),
        data=model.data,
        parameters=sum(parameter.numel() for parameter in model.network().parameters()),
        float32_onnx_bytes=len(plain) if config.quantize else None,
        instruction_sets=instruction_sets(),
        checks=found.checks,
        accuracy=found.accuracy,
        calibration=calibration,
        latency=found.latency,
        warnings=warnings,
        versions=_versions(),
        date=datetime.date.today().isoformat(),
    )


def _calibration(job: ExportJob) -> Int8Calibration | None:
    images = job.images.calibration
    if job.config.quantize is None or images is None:
        return None
    return Int8Calibration(images=images.description, count=len(images), method=method_text(job.config.quantize))


def _versions() -> dict[str, str]:
    return {
        "tfnas": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }
