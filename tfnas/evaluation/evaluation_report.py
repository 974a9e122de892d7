"""What a test found: metrics, the classes one by one, speed, and under which conditions."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from tfnas.nn.classification_metrics import ClassificationMetrics

FORMAT, VERSION = "tfnas-test", 1
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassResult:
    """One class: how many images, how many of them right, and what the others were taken for most often."""

    number: int
    name: str
    images: int
    correct: int
    confused_with: str | None
    confused: int

    @property
    def accuracy(self) -> float | None:
        """Percent right; None for a class without images."""
        return 100 * self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Throughput:
    """Images per second: of the network alone, and with reading and preparing the images."""

    network: float
    with_loading: float
    batch_size: int
    device: str
    threads: int
    workers: int
    kind: str = "float32"
    """The numbers that the network computes in, such as int8."""


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """All that a test found. `confusion[i, j]` is how many images of class i were taken for class j."""

    network: str
    images: str
    class_names: tuple[str, ...]
    image_size: int
    params: int
    macs: int
    metrics: ClassificationMetrics
    confusion: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    throughput: Throughput
    folder: Path
    """Where test.json, confusion.png and per_class.csv are."""
    warning: str | None = None
    """Why the network's answers on this processor may be wrong."""

    @property
    def top1_interval(self) -> tuple[float, float]:
        """95 % confidence interval of top-1 in percent (Wilson, 1927): what other images of this kind would give."""
        correct = int(np.trace(self.confusion))
        found = binomtest(correct, self.metrics.images).proportion_ci(_CONFIDENCE, method="wilson")
        return 100 * float(found.low), 100 * float(found.high)

    def classes(self) -> list[ClassResult]:
        """The classes in the network's order. Of confusions equally frequent the first class counts."""
        results = []
        for number, name in enumerate(self.class_names):
            taken_for = self.confusion[number].copy()
            images, correct = int(taken_for.sum()), int(taken_for[number])
            taken_for[number] = 0
            worst = int(taken_for.argmax())
            other = self.class_names[worst] if taken_for[worst] else None
            results.append(ClassResult(number, name, images, correct, other, int(taken_for[worst])))
        return results

    def to_json(self) -> dict[str, Any]:
        """Every number, for test.json: accuracies in percent, loss in nats, throughput in images per second."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "network": self.network,
            "images": self.images,
            "num_images": self.metrics.images,
            "num_classes": len(self.class_names),
            "image_size": self.image_size,
            "parameters": self.params,
            "macs": self.macs,
            "top1": self.metrics.top1,
            "top1_interval_95": list(self.top1_interval),
            "top5": self.metrics.top5,
            "loss": self.metrics.loss,
            "warning": self.warning,
            "throughput": asdict(self.throughput),
            "classes": [{**asdict(found), "accuracy": found.accuracy} for found in self.classes()],
            "confusion": self.confusion.tolist(),
        }


def per_class_csv(classes: Sequence[ClassResult]) -> str:
    """The classes as a CSV table with a header; accuracy in percent, empty where there are no images."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "class", "images", "correct", "accuracy", "confused_with", "confused"])
    for found in classes:
        accuracy = "" if found.accuracy is None else f"{found.accuracy:.4f}"
        row = [found.number, found.name, found.images, found.correct, accuracy, found.confused_with or ""]
        writer.writerow([*row, found.confused])
    return text.getvalue()
