"""Timing graphs against one another: in turn, on the same images, so that a slow minute meets all of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tfnas.bench.timing import Timing
from tfnas.export.export_report import Latency
from tfnas.utils.devices import processor_name
from tfnas.utils.torch_settings import prime_allocator, torch_threads

_WARMUP = 3
_RUNS = (10, 100)
_SECONDS = 6.0
_SEED = 0


@dataclass(frozen=True, eq=False)
class Subject:
    """Something to time: what runs it and in which numbers, and the call on float32 images in 0..1."""

    kind: str
    runtime: str
    call: Callable[[Tensor], Tensor]


def time_in_turn(subjects: Sequence[Subject], images: Tensor, threads: int) -> list[Latency]:
    """Median and interquartile spread of every subject on one batch of images.

    Every round calls all subjects once, in a new order. There are 10 to 100 rounds, as many as fit into six seconds.
    The threads are those that the subjects were opened with; PyTorch's are set here.
    """
    order, shuffler = list(range(len(subjects))), random.Random(_SEED)
    milliseconds: list[list[float]] = [[] for _ in subjects]
    prime_allocator()
    with torch_threads(threads):
        for subject in subjects:
            for _ in range(_WARMUP):
                _call_ms(subject, images)
        round_ms = sum(_call_ms(subject, images) for subject in subjects)
        for _ in range(round(min(max(_SECONDS * 1000 / round_ms, _RUNS[0]), _RUNS[1]))):
            shuffler.shuffle(order)
            for index in order:
                milliseconds[index].append(_call_ms(subjects[index], images))
    device = processor_name()
    timings = [Timing.of(row) for row in milliseconds]
    return [
        Latency(
            kind=subject.kind,
            runtime=subject.runtime,
            batch_size=len(images),
            threads=threads,
            device=device,
            median_ms=timing.median_ms,
            spread_ms=timing.spread_ms,
            runs=timing.runs,
        )
        for subject, timing in zip(subjects, timings, strict=True)
    ]


def _call_ms(subject: Subject, images: Tensor) -> float:
    start = time.perf_counter()
    subject.call(images)
    return (time.perf_counter() - start) * 1e3
