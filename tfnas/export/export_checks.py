"""Running an exported file: whether it gives what the network gives, its accuracy, and its latency.

Of an 8-bit file, the float32 graph that it was made from is run too, and the file without 8-bit arithmetic, which is
what it means on every processor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from tfnas.bench.timing import RoundLimits, steady, time_interleaved
from tfnas.core.errors import RunFailed
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_config import ExportConfig
from tfnas.export.export_images import ExportImages, SampledImages
from tfnas.export.export_report import Accuracy, Latency, OutputCheck
from tfnas.export.exported_files import Deployed, load_own
from tfnas.export.onnx_model import OnnxModel, SaturationWarning, in_batches
from tfnas.nn.classification_metrics import MetricSums
from tfnas.runs.model_file import TrainedModel
from tfnas.utils.devices import byte_instructions, processor_name

CHECK_BATCH = 32
RELATIVE_TOLERANCE = 1e-4
"""Of the largest logit, or of 1 where that is smaller: ten times what rounding does to these networks in float32."""
ONNXRUNTIME = f"onnxruntime {onnxruntime.__version__}"
TORCH = f"torch {torch.__version__.partition('+')[0]}"
_REFERENCE = "reference"
_TIMED = RoundLimits(seconds=6.0, fewest=10, most=100)

GraphCall = Callable[[Tensor], Tensor]
"""Logits N x classes of float32 images in 0..1."""


@dataclass(frozen=True, eq=False)
class ExportJob:
    """What is exported, and the images to check it on."""

    config: ExportConfig
    target: Path
    model: TrainedModel
    preprocessing: Preprocessing
    images: ExportImages


@dataclass(frozen=True)
class ExportFindings:
    """What running the file has shown."""

    checks: tuple[OutputCheck, ...]
    accuracy: Accuracy | None
    latency: tuple[Latency, ...]


@dataclass(frozen=True, eq=False)
class _TimedGraph:
    """What is checked and timed: what runs it, and in which number type."""

    kind: str
    runtime: str
    call: GraphCall


def examine(job: ExportJob, file: Path, data: bytes, float32: bytes) -> ExportFindings:
    """Check and time a file, of which `data` are the bytes and `float32` those before any quantisation.

    Raises RunFailed where it is wrong.
    """
    config, graphs = job.config, _open_graphs(job, file, float32)
    calls = {graph.kind: graph.call for graph in graphs}
    if config.quantize:
        reference = OnnxModel.from_bytes(data, str(job.target), threads=config.threads, optimized=False)
        calls[_REFERENCE] = reference.logits
    outputs = run_graphs(job.model.network(), job.preprocessing, calls, job.images.check, config.batch_size)
    return ExportFindings(_checks(job, outputs), _accuracy(job, outputs), _latency(job, graphs))


def _open_graphs(job: ExportJob, file: Path, float32: bytes) -> list[_TimedGraph]:
    """The graphs to check and to time: the file, and for int8 first the float32 graph that it comes from."""
    config = job.config
    if config.format == "torch_export":
        run, batch_size = load_own(file), config.batch_size
        return [_TimedGraph(config.kind, f"{TORCH} export", lambda images: in_batches(run, images, batch_size))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaturationWarning)  # its effect is measured here, and reported
        graphs = [_TimedGraph(config.kind, ONNXRUNTIME, OnnxModel.load(file, threads=config.threads).logits)]
    if config.quantize:
        before = OnnxModel.from_bytes(float32, "the float32 graph", threads=config.threads)
        graphs.insert(0, _TimedGraph("float32", ONNXRUNTIME, before.logits))
    return graphs


# ---- outputs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GraphOutputs:
    """Logits of the network in PyTorch and of graphs, N x classes each, and the batch sizes that were called."""

    network: Tensor
    graphs: dict[str, Tensor]
    batch_sizes: tuple[int, ...]


def run_graphs(
    network: nn.Module,
    preprocessing: Preprocessing,
    graphs: dict[str, GraphCall],
    images: SampledImages,
    batch: int | None,
) -> GraphOutputs:
    """Run the network, as it was trained, and the graphs, which normalise and may have folded, on the same images.

    Graphs for any batch size (`batch` None) get one image first, then batches of CHECK_BATCH.
    """
    expected: list[Tensor] = []
    found: dict[str, list[Tensor]] = {name: [] for name in graphs}
    sizes: list[int] = []
    for pixels in images.pixels(CHECK_BATCH):
        with torch.inference_mode():
            expected.append(network(preprocessing.normalise(pixels)))
        values = pixels.float() / 255
        alone = batch is None and not sizes and len(values) > 1
        parts = [values[:1], values[1:]] if alone else [values]
        sizes += [batch or len(part) for part in parts]
        for name, call in graphs.items():
            found[name] += [call(part) for part in parts]
    return GraphOutputs(
        torch.cat(expected), {name: torch.cat(rows) for name, rows in found.items()}, tuple(sorted(set(sizes)))
    )


def check_outputs(
    outputs: GraphOutputs, name: str, kind: str, images: str, instructions: str | None = None
) -> OutputCheck:
    """How far the graph called `name`, which computes in `kind`, is from the network on what `images` describes.

    `instructions` multiplied its bytes, where it has any.

    Raises RunFailed when float32 is further away than rounding explains, or any logit is no finite number.
    """
    expected, found = outputs.network, outputs.graphs[name]
    if not found.isfinite().all():
        raise RunFailed(
            f"the exported file gives logits that are not finite in {kind}: its activations exceed the range of this "
            "number type, or its weights are damaged. Nothing was written; try --dtype float32"
        )
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    tolerance = RELATIVE_TOLERANCE * max(1.0, largest) if kind == "float32" else None
    if tolerance is not None and difference > tolerance:
        raise RunFailed(
            f"the exported file is wrong: its logits differ from PyTorch's by up to {difference:.3g}, more than "
            f"{tolerance:.3g}, on {len(found)} {images}. Nothing was written"
        )
    return OutputCheck(
        kind=kind,
        instructions=instructions,
        images=images,
        count=len(found),
        batch_sizes=outputs.batch_sizes,
        max_abs_difference=difference,
        largest_logit=largest,
        same_top1=float((found.argmax(1) == expected.argmax(1)).double().mean()),
        tolerance=tolerance,
    )


def _checks(job: ExportJob, outputs: GraphOutputs) -> tuple[OutputCheck, ...]:
    """Every graph against the network."""
    quantize, images = job.config.quantize, job.images.check.description
    return tuple(
        check_outputs(
            outputs,
            name,
            job.config.kind if name == _REFERENCE else name,
            images,
            byte_instructions() if name == quantize else None,
        )
        for name in outputs.graphs
    )


def _accuracy(job: ExportJob, outputs: GraphOutputs) -> Accuracy | None:
    """Top-1 of float32 and of the file: for int8 both graphs in onnxruntime, else PyTorch's network and the file."""
    images, graphs, quantized = job.images.check, outputs.graphs, job.config.quantize is not None
    if not images.labelled:
        return None
    labels = images.labels()

    def top1(logits: Tensor) -> float:
        sums = MetricSums(logits.device)
        sums.update([logits], labels)
        return sums.metrics()[0].top1

    before, after = top1(graphs["float32"] if quantized else outputs.network), top1(graphs[job.config.kind])
    return Accuracy(
        images=images.description,
        count=len(images),
        float32_top1=before,
        float32_runtime=ONNXRUNTIME if quantized else TORCH,
        file_top1=after,
        drop_points=before - after,
        reference_top1=top1(graphs[_REFERENCE]) if quantized else None,
    )


# ---- latency ----------------------------------------------------------------------------------------------------


def _latency(job: ExportJob, graphs: list[_TimedGraph]) -> tuple[Latency, ...]:
    """Single images and the larger batch, or the one batch that the file takes; PyTorch's float32 for comparison."""
    config = job.config
    sizes = sorted({1, config.measure_batch}) if config.batch_size is None else [config.batch_size]
    deployed = Deployed(job.model.network(), job.preprocessing).to(memory_format=torch.channels_last)

    def eager(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = deployed(images.contiguous(memory_format=torch.channels_last))
        return logits

    pixels = torch.cat(list(job.images.check.first(max(sizes)).pixels(CHECK_BATCH))).float() / 255
    repeated = pixels.repeat(-(-max(sizes) // len(pixels)), 1, 1, 1)  # there may be fewer images than the batch takes
    everything = [*graphs, _TimedGraph("float32", f"{TORCH} eager", eager)]
    return tuple(latency for size in sizes for latency in _timed(everything, repeated[:size].clone(), config.threads))


def _timed(graphs: list[_TimedGraph], images: Tensor, threads: int) -> Iterator[Latency]:
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
