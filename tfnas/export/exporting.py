"""`export_model`: a trained network becomes a file to ship, which is checked and timed before it gets its name."""

from __future__ import annotations

import datetime
import json
import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from torch import Tensor

from tfnas.bench.timing import RoundLimits, steady, time_interleaved
from tfnas.core.version import __version__
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_checks import CHECK_BATCH, Answers, Call, answers, checked, shipping_warnings, top1_percent
from tfnas.export.export_config import NEEDS, REPORT_SUFFIX, ExportConfig
from tfnas.export.export_images import ExportImages, open_images
from tfnas.export.export_report import Accuracy, Calibration, Check, ExportReport, Latency
from tfnas.export.exported_files import json_text, load_own, onnx_bytes, torch_export_bytes
from tfnas.export.onnx_model import OnnxModel, SaturationWarning, in_batches
from tfnas.export.quantizing import WEIGHTS, method_text, quantized_bytes
from tfnas.export.traced import Deployed, trace
from tfnas.runs.model_file import TrainedModel
from tfnas.runs.named_model import open_named_model
from tfnas.utils.devices import byte_instructions, instruction_sets, processor_name
from tfnas.utils.files import check_writable, staged, write_whole
from tfnas.utils.onnx_export import OPSET
from tfnas.utils.torch_settings import torch_threads

ONNXRUNTIME = f"onnxruntime {onnxruntime.__version__}"
TORCH = f"torch {torch.__version__.partition('+')[0]}"
_REFERENCE = "reference"
_TIMED = RoundLimits(seconds=6.0, fewest=10, most=100)


@dataclass(frozen=True, eq=False)
class _Graph:
    """What is checked and timed: what runs it and in which number type, and the call on float32 images in 0..1."""

    kind: str
    runtime: str
    call: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is exported, and the pictures to hold it against."""

    config: ExportConfig
    target: Path
    model: TrainedModel
    preprocessing: Preprocessing
    images: ExportImages


def export_model(
    config: ExportConfig,
    *,
    on_step: Callable[[str], None] = lambda _: None,
    on_report: Callable[[ExportReport], None] = lambda _: None,
) -> ExportReport:
    """Write a trained network as one file, check it by running it, time it, and write the report beside it.

    `on_step` is told what is done next, `on_report` what was found, before the file gets its name.

    Raises:
        InputError: There is no such model, no such folder, or int8 is wanted and there are no real images.
        RunFailed: The file does not give what the network gives, or cannot be written, which is tried before the work.
            What stood there before stays.
    """
    model = open_named_model(config, config.weights).model
    target = config.target()
    beside = Path(f"{target}{REPORT_SUFFIX}")
    for path in (target, beside):
        check_writable(path)
    preprocessing = model.preprocessing.at_size(config.image_size)
    plan = _Plan(config, target, model, preprocessing, open_images(config, model, preprocessing))
    with torch_threads(config.threads):
        on_step(f"tracing the network for {config.format}")
        plain = _unquantized(plan)
        data = plain
        if config.quantize:
            assert plan.images.calibration is not None
            on_step(f"calibrating int8 on {len(plan.images.calibration)} images")
            batch_size = config.batch_size or CHECK_BATCH
            data = quantized_bytes(plain, config.quantize, plan.images.calibration, batch_size, _texts(plan))
        with staged(target, data) as file:
            on_step("checking and timing the file")
            report = _examined(plan, file, data, plain)
            on_report(report)
    write_whole(beside, json.dumps(report.to_json(), indent=2) + "\n")
    return report


def _unquantized(plan: _Plan) -> bytes:
    config = plan.config
    program = trace(plan.model, plan.preprocessing, config.dtype, config.batch_size)
    if config.format == "torch_export":
        return torch_export_bytes(program, _facts(plan))
    return onnx_bytes(program, _texts(plan), config.opset or OPSET)


def _facts(plan: _Plan) -> dict[str, Any]:
    """What a user of the file must know."""
    quantized = {} if plan.config.quantize is None else {"weights": WEIGHTS[plan.config.quantize]}
    if plan.config.kind in NEEDS:
        quantized["needs"] = NEEDS[plan.config.kind]
    return {
        "class_names": list(plan.model.class_names),
        "image_size": plan.preprocessing.image_size,
        "preprocessing": plan.preprocessing.to_json(),
        "architecture": plan.model.architecture.to_text(),
        "data": plan.model.data,
        "kind": plan.config.kind,
        **quantized,
        "tfnas_version": __version__,
    }


def _texts(plan: _Plan) -> dict[str, str]:
    """The same for ONNX, whose metadata are texts: JSON where it is not text already."""
    return {name: value if isinstance(value, str) else json_text(value) for name, value in _facts(plan).items()}


def _examined(plan: _Plan, file: Path, data: bytes, plain: bytes) -> ExportReport:
    """Run the file on pictures and against the clock. Raises RunFailed where it is wrong."""
    config, pictures = plan.config, plan.images.check
    graphs = _graphs(plan, file, plain)
    network = plan.model.network()
    calls: dict[str, Call] = {graph.kind: graph.call for graph in graphs}
    if config.quantize:
        reference = OnnxModel.from_bytes(data, str(plan.target), threads=config.threads, optimized=False)
        calls[_REFERENCE] = reference.logits
    found = answers(network, plan.preprocessing, calls, pictures, config.batch_size)
    checks = _checks(plan, found)
    accuracy = _accuracy(plan, found, len(pictures))
    latency = _latency(plan, graphs)
    calibration = plan.images.calibration
    return ExportReport(
        file=str(plan.target),
        file_bytes=len(data),
        format=config.format,
        kind=config.kind,
        image_size=plan.preprocessing.image_size,
        batch=config.batch,
        opset=(config.opset or OPSET) if config.format == "onnx" else None,
        num_classes=len(plan.model.class_names),
        model=config.place,
        architecture=plan.model.architecture.to_text(),
        data=plan.model.data,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        float32_onnx_bytes=len(plain) if config.quantize else None,
        instruction_sets=instruction_sets(),
        checks=checks,
        accuracy=accuracy,
        calibration=Calibration(images=calibration.words, count=len(calibration), method=method_text(config.quantize))
        if config.quantize and calibration is not None
        else None,
        latency=latency,
        warnings=shipping_warnings(checks, accuracy, latency, len(data), len(plain), len(calibration))
        if config.quantize and calibration is not None
        else (),
        versions={
            "tfnas": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
        date=datetime.date.today().isoformat(),
    )


def _graphs(plan: _Plan, file: Path, plain: bytes) -> list[_Graph]:
    """The graphs to check and to time: the file, and for int8 first the float32 graph that it comes from."""
    config = plan.config
    if config.format == "torch_export":
        run, batch_size = load_own(file), config.batch_size
        return [_Graph(config.kind, f"{TORCH} export", lambda images: in_batches(run, images, batch_size))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # what comes of it is measured here, and reported
        graphs = [_Graph(config.kind, ONNXRUNTIME, OnnxModel.load(file, threads=config.threads).logits)]
    if config.quantize:
        before = OnnxModel.from_bytes(plain, "the float32 graph", threads=config.threads)
        graphs.insert(0, _Graph("float32", ONNXRUNTIME, before.logits))
    return graphs


def _checks(plan: _Plan, found: Answers) -> tuple[Check, ...]:
    """Every graph against the network; of an 8-bit file also without 8-bit arithmetic, as no processor changes it."""
    quantize, words = plan.config.quantize, plan.images.check.words
    checks = []
    for name in found.graphs:
        kind = plan.config.kind if name == _REFERENCE else name
        checks.append(checked(found, name, kind, words, byte_instructions() if name == quantize else None))
    return tuple(checks)


def _accuracy(plan: _Plan, found: Answers, count: int) -> Accuracy | None:
    """Top-1 of float32 and of the file: for int8 both graphs in onnxruntime, else PyTorch's network and the file."""
    pictures, graphs, quantized = plan.images.check, found.graphs, plan.config.quantize is not None
    if not pictures.labelled:
        return None
    labels = pictures.labels()
    before = top1_percent(graphs["float32"] if quantized else found.network, labels)
    after = top1_percent(graphs[plan.config.kind], labels)
    return Accuracy(
        images=pictures.words,
        count=count,
        float32_top1=before,
        float32_runtime=ONNXRUNTIME if quantized else TORCH,
        file_top1=after,
        drop_points=before - after,
        reference_top1=top1_percent(graphs[_REFERENCE], labels) if quantized else None,
    )


def _latency(plan: _Plan, graphs: list[_Graph]) -> tuple[Latency, ...]:
    """Single images and the larger batch, or the one batch that the file takes; PyTorch's float32 beside it."""
    config = plan.config
    sizes = sorted({1, config.measure_batch}) if config.batch_size is None else [config.batch_size]
    deployed = Deployed(plan.model.network(), plan.preprocessing).to(memory_format=torch.channels_last)

    def beside(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = deployed(images.contiguous(memory_format=torch.channels_last))
        return logits

    pixels = torch.cat(list(plan.images.check.first(max(sizes)).pixels(CHECK_BATCH))).float() / 255
    repeated = pixels.repeat(-(-max(sizes) // len(pixels)), 1, 1, 1)  # there may be fewer pictures than the batch takes
    everything = [*graphs, _Graph("float32", f"{TORCH} eager", beside)]
    return tuple(latency for size in sizes for latency in _timed(everything, repeated[:size].clone(), config.threads))


def _timed(graphs: list[_Graph], images: Tensor, threads: int) -> Iterator[Latency]:
    """The latency of every graph on one batch of images; they have been opened with that many threads."""
    with steady(threads, bind=False):
        timings = time_interleaved([partial(graph.call, images) for graph in graphs], _TIMED)
    for graph, timing in zip(graphs, timings, strict=True):
        yield Latency(
            kind=graph.kind,
            runtime=graph.runtime,
            batch_size=len(images),
            threads=threads,
            device=processor_name(),
            **vars(timing),
        )
