"""How a run computes: threads, memory allocator, determinism and true float32, for its duration."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

_LARGEST_PRIMING_BYTES = 31 * 2**20


def prime_allocator() -> None:
    """Make the C library keep freed tensors of up to 31 MiB for the next call instead of giving them to the system.

    glibc raises its thresholds for this to the largest block freed so far, up to 32 MiB; freeing one of nearly that
    size sets them for good. Without effect, and harmless, elsewhere.
    """
    del_after = torch.empty(_LARGEST_PRIMING_BYTES, dtype=torch.uint8)
    del del_after


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on so many of the cores it may use; afterwards as before.

    Without effect where the system cannot bind threads to cores, and where there are no more cores than threads.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def runtime_settings(threads: int, deterministic: bool, *, float32: bool = False) -> Iterator[None]:
    """Compute with so many threads and, if asked, with deterministic algorithms only; afterwards as before.

    `float32` keeps float32 what it is on a GPU too, where PyTorch by default rounds the numbers that convolutions
    multiply to TF32, with 10 bits of 23.
    """
    before = torch.get_deterministic_debug_mode()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import PyTorch's compiler
    prime_allocator()
    try:
        with torch_threads(threads), _true_float32() if float32 else nullcontext():
            yield
    finally:
        torch.set_deterministic_debug_mode(before)


def give_back_freed_memory() -> None:
    """Give memory that has been freed back to the system, of which glibc keeps much (a fifth of a search's)."""
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`, or None where the C library is another."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


@contextmanager
def _true_float32() -> Iterator[None]:
    """Neither convolutions nor matrix products in TF32."""
    cudnn: Any = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # a program has set them one by one, and then they can be read one by one only
        with _one_by_one((cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)):
            yield
        return
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@contextmanager
def _one_by_one(kernels: Sequence[Any]) -> Iterator[None]:
    before = [kernel.fp32_precision for kernel in kernels]
    for kernel in kernels:
        kernel.fp32_precision = "ieee"
    try:
        yield
    finally:
        for kernel, precision in zip(kernels, before, strict=True):
            kernel.fp32_precision = precision
