"""Testing a network on images: `evaluate` is what test.py does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from tfnas.bench.timing import wait_for
from tfnas.core.errors import RunFailed
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.evaluation.evaluation_config import EvaluationConfig
from tfnas.evaluation.evaluation_report import EvaluationReport, Throughput
from tfnas.evaluation.tested_model import EvaluatedModel, TestSet, open_evaluated_model, open_test_set
from tfnas.nn.classification_metrics import ClassificationMetrics, evaluate_batches, evaluating
from tfnas.spaces.families import architecture_counts
from tfnas.utils.devices import named_device, processor_name, runtime_settings

OnProgress = Callable[[int, int, float], None]
"""Called from time to time with images done, images in all, and seconds so far."""


def evaluate(
    config: EvaluationConfig,
    *,
    on_progress: OnProgress | None = None,
    on_found: Callable[[EvaluationReport], None] = lambda _: None,
) -> EvaluationReport:
    """Test the network that the configuration names, and write test.json, confusion.png and per_class.csv.

    `on_found` is called with the report before it is written.

    Raises:
        InputError: The network, its weights or the images are missing or do not go together.
        RunFailed: The network's outputs are not finite, memory is short, or a file cannot be written.
    """
    model = open_evaluated_model(config)
    device = torch.device("cpu") if model.is_exported else named_device(config.device)
    test_set = open_test_set(config, model)
    folder = config.folder(model.run_dir, model.results)  # refused before the work, not after it
    with runtime_settings(config.threads or torch.get_num_threads(), deterministic=False, float32=True):
        results = _run(config, model, test_set, device, on_progress)
    counts = architecture_counts(model.architecture)
    report = EvaluationReport(
        network=model.description,
        images=test_set.description,
        class_names=model.class_names,
        image_size=model.preprocessing.image_size,
        params=counts.params,
        macs=counts.macs,
        metrics=results.metrics,
        confusion=results.confusion,
        throughput=results.throughput,
        folder=folder,
        warning=model.warning,
    )
    on_found(report)
    report.write()
    return report


class _Results(NamedTuple):
    metrics: ClassificationMetrics
    confusion: NDArray[np.int64]
    throughput: Throughput


def _run(
    config: EvaluationConfig,
    model: EvaluatedModel,
    test_set: TestSet,
    device: torch.device,
    on_progress: OnProgress | None,
) -> _Results:
    """Compute the classes of all images, and the time that it took."""
    count, num_classes = len(test_set.images), len(model.class_names)
    network = model.network.to(device)
    order = EpochBatches(count, batch_size=config.batch_size, epoch=0, seed=None)
    batches: Iterable[list[Tensor]] = loader(test_set.images, order, workers=test_set.workers, device=device)
    watch, predicted = _Stopwatch(network), []

    def logits(pixels: Tensor) -> Tensor:
        found = watch.call(pixels)
        predicted.append(found.argmax(1).cpu())
        return found

    if on_progress is not None and config.print_freq > 0:
        batches = _progressing(batches, count, config.print_freq, watch, on_progress)
    with _memory_errors(config.batch_size), evaluating(network):
        metrics = evaluate_batches(logits, batches, device, num_classes=num_classes)
    elapsed = watch.elapsed()
    if not math.isfinite(metrics.loss):
        raise RunFailed(f"the loss is {metrics.loss}: the outputs of {model.description} are not finite")
    confusion = confusion_matrix(test_set.images.labels, torch.cat(predicted), labels=range(num_classes))
    throughput = Throughput(
        network=metrics.images / watch.computing,
        with_loading=metrics.images / elapsed,
        batch_size=min(config.batch_size, metrics.images),
        device=processor_name() if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=torch.get_num_threads(),
        workers=test_set.workers,
        kind=model.kind,
    )
    return _Results(metrics, confusion, throughput)


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
        wait_for(pixels.device)
        begun = time.perf_counter()
        logits: Tensor = self._network(pixels)
        wait_for(pixels.device)
        self.computing += time.perf_counter() - begun
        return logits


def _progressing(
    batches: Iterable[list[Tensor]], count: int, print_freq: float, watch: _Stopwatch, on_progress: OnProgress
) -> Iterator[list[Tensor]]:
    """The batches of `count` images, with a call every `print_freq` seconds."""
    done, last = 0, 0.0
    for batch in batches:
        yield batch
        done, elapsed = done + len(batch[1]), watch.elapsed()
        if elapsed - last >= print_freq:
            on_progress(done, count, elapsed)
            last = elapsed


@contextmanager
def _memory_errors(batch_size: int) -> Iterator[None]:
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
                f"a data loader process died ({error}): if memory is short, reduce --workers or --batch_size"
            ) from error
        raise
