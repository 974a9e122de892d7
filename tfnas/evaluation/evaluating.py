"""Testing a network on images: `evaluate` is what test.py does."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from tfnas.core.errors import RunFailed
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.evaluation.confusion_plot import confusion_plot
from tfnas.evaluation.evaluated_images import TestSet, open_images
from tfnas.evaluation.evaluated_model import EvaluatedModel, open_evaluated_model
from tfnas.evaluation.evaluation_config import PICTURE_FILE, REPORT_FILE, TABLE_FILE, EvaluationConfig
from tfnas.evaluation.evaluation_report import EvaluationReport, Throughput, per_class_csv
from tfnas.nn.classification_metrics import evaluate_batches, evaluating
from tfnas.spaces.families import architecture_counts
from tfnas.utils.devices import named_device, processor_name
from tfnas.utils.files import write_whole
from tfnas.utils.torch_settings import runtime_settings

OnProgress = Callable[[int, int, float], None]
"""Is told, from time to time: images done, images in all, seconds so far."""


class _Stopwatch:
    """Calls a network and adds up the seconds; on a GPU from idle to idle. A first call warms up and does not count."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._start = time.perf_counter()
        self._warm = False
        self.computing = 0.0

    def call(self, pixels: Tensor) -> Tensor:
        """The logits of a batch."""
        if not self._warm:
            begun = time.perf_counter()
            self._timed(pixels)
            self._start += time.perf_counter() - begun
            self._warm, self.computing = True, 0.0
        return self._timed(pixels)

    def elapsed(self) -> float:
        """Seconds since the beginning, with everything else that was done."""
        return time.perf_counter() - self._start

    def _timed(self, pixels: Tensor) -> Tensor:
        _wait_for(pixels.device)
        begun = time.perf_counter()
        logits: Tensor = self._network(pixels)
        _wait_for(pixels.device)
        self.computing += time.perf_counter() - begun
        return logits


def evaluate(
    config: EvaluationConfig,
    *,
    on_progress: OnProgress | None = None,
    on_found: Callable[[EvaluationReport], None] = lambda _: None,
) -> EvaluationReport:
    """Test the network that the configuration names, and write test.json, confusion.png and per_class.csv.

    `on_found` is told what was found before that is written.

    Raises:
        InputError: The network, its weights or the images are missing or do not go together.
        RunFailed: The network's outputs are not finite, memory is short, or a file cannot be written.
    """
    model = open_evaluated_model(config)
    device = torch.device("cpu") if model.on_cpu else named_device(config.device)
    images = open_images(config, model)
    with runtime_settings(config.threads or torch.get_num_threads(), deterministic=False, float32=True):
        report = _judged(config, model, images, device, on_progress)
    on_found(report)
    folder = report.folder
    write_whole(folder / REPORT_FILE, json.dumps(report.to_json(), indent=1) + "\n")
    write_whole(folder / TABLE_FILE, per_class_csv(report.classes()))
    write_whole(folder / PICTURE_FILE, confusion_plot(report))
    return report


def _judged(
    config: EvaluationConfig,
    model: EvaluatedModel,
    images: TestSet,
    device: torch.device,
    on_progress: OnProgress | None,
) -> EvaluationReport:
    folder = config.folder(model.run_dir, model.results)  # refused before the work, not after it
    num_classes = len(model.class_names)
    network = model.network.to(device)
    order = EpochBatches(len(images.images), batch_size=config.batch_size, epoch=0, seed=None)
    batches = loader(images.images, order, workers=images.workers, device=device)
    watch, predicted = _Stopwatch(network), []

    def logits(pixels: Tensor) -> Tensor:
        found = watch.call(pixels)
        predicted.append(found.argmax(1).cpu())
        return found

    def shown() -> Iterator[list[Tensor]]:
        done, last = 0, 0.0
        for batch in batches:
            yield batch
            done, elapsed = done + len(batch[1]), watch.elapsed()
            if on_progress is not None and 0 < config.print_freq <= elapsed - last:
                on_progress(done, len(images.images), elapsed)
                last = elapsed

    with _memory_told(config.batch_size), evaluating(network):
        metrics = evaluate_batches(logits, shown(), device, num_classes=num_classes)
    elapsed = watch.elapsed()
    confusion = confusion_matrix(images.images.labels, torch.cat(predicted), labels=range(num_classes))
    if not math.isfinite(metrics.loss):
        raise RunFailed(f"the loss is {metrics.loss}: the weights of {model.words} give outputs that are not finite")
    counts = architecture_counts(model.architecture)
    return EvaluationReport(
        network=model.words,
        images=images.words,
        class_names=model.class_names,
        image_size=model.preprocessing.image_size,
        params=counts.params,
        macs=counts.macs,
        metrics=metrics,
        confusion=confusion,
        throughput=Throughput(
            network=metrics.images / watch.computing,
            with_loading=metrics.images / elapsed,
            batch_size=min(config.batch_size, metrics.images),
            device=processor_name() if device.type == "cpu" else torch.cuda.get_device_name(device),
            threads=torch.get_num_threads(),
            workers=images.workers,
            kind=model.kind,
        ),
        folder=folder,
        warning=model.warning,
    )


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _memory_told(batch_size: int) -> Iterator[None]:
    short = f"out of memory at batch size {batch_size}; give a smaller --batch_size"
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunFailed(short) from error
    except RuntimeError as error:
        # on the CPU PyTorch has no class of its own for either
        if "can't allocate memory" in str(error):
            raise RunFailed(short) from error
        if "DataLoader worker" in str(error):
            raise RunFailed(
                f"a loader process died ({error}): if memory is short, give fewer --workers or a smaller --batch_size"
            ) from error
        raise
