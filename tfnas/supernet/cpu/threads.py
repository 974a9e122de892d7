"""A thread pool for the parts of a search step that do not depend on each other.

PyTorch splits every operator over all threads and waits for the last of them. A search step is made of thousands of
small ones. Given a whole operation of a block, or a whole path, each core works without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`function` of every item, in their order, on as many threads as PyTorch has here; they start in this order too.

    PyTorch's operators get the whole number of threads that is left for each. Gradients are recorded there as they are
    here. An error is raised when all have ended, that of the first item first.
    """
    threads = _caller.threads or torch.get_num_threads()
    workers = min(threads, len(items))
    if workers < 2:
        return [function(item) for item in items]
    grad_enabled = torch.is_grad_enabled()

    def call(item: T) -> R:
        with torch.set_grad_enabled(grad_enabled):
            return function(item)

    futures = [_pool(workers, threads // workers).submit(call, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


class _Caller(local):
    threads = 0  # that `parallel_map` may use, where operators of this thread may not


_caller = _Caller()


@contextmanager
def serial_operators() -> Iterator[None]:
    """PyTorch's operators run on this thread alone, while `parallel_map` still uses all threads.

    PyTorch's own threads keep a core busy for milliseconds while they wait for the next operator, where a thread of the
    pool could compute.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    _caller.threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _caller.threads = 0


@cache
def _pool(workers: int, threads_each: int) -> ThreadPoolExecutor:
    """A pool whose threads have all started, with their number of PyTorch's threads."""
    default, all_started = torch.get_num_threads(), Barrier(workers)

    def start() -> None:
        torch.get_num_threads()  # a thread's first question sets it up, and would undo what was set before
        torch.set_num_threads(threads_each)  # of this thread's operators
        all_started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="supernet")
    wait([pool.submit(start) for _ in range(workers)])
    torch.set_num_threads(default)  # what new threads begin with
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has no threads of its parent's
