"""How a run computes: threads, memory allocator and determinism, for its duration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tfnas.latency.measure import prime_allocator, torch_threads


@contextmanager
def computing(threads: int, deterministic: bool) -> Iterator[None]:
    """Compute with so many threads and, if asked, with deterministic algorithms only; afterwards as before."""
    before = torch.are_deterministic_algorithms_enabled()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    prime_allocator()
    try:
        with torch_threads(threads):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
