"""Threads that compute side by side, where a step has several things to compute that do not wait for each other.

PyTorch gives every operator to all threads and waits for the last of them. A search step is made of thousands of small
ones. Given a whole operation of a block, or a whole path, each core works without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from threading import Barrier, local
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks give, in their order, from as many threads as PyTorch has here; they start in this order too.

    A task has threads of its own: the whole number that each gets of PyTorch's. Gradients are recorded in it
    as they are here. An error of a task is raised when all have ended, that of the first task first.
    """
    threads = _leader.threads or torch.get_num_threads()
    members = min(threads, len(tasks))
    if members < 2:
        return [task() for task in tasks]
    records = torch.is_grad_enabled()

    def run(task: Callable[[], T]) -> T:
        with torch.set_grad_enabled(records):
            return task()

    futures = [_crew(members, threads // members).submit(run, task) for task in tasks]
    wait(futures)
    return [future.result() for future in futures]


class _Leader(local):
    threads = 0  # that a leading thread has for its crew


_leader = _Leader()


@contextmanager
def leading() -> Iterator[None]:
    """Meanwhile this thread's operators are its own alone, while what is done `side_by_side` has all threads as before.

    Threads that PyTorch gives an operator wait for the next one with a busy core, for milliseconds, in a crew's way.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    _leader.threads = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _leader.threads = 0


@cache
def _crew(members: int, threads_each: int) -> ThreadPoolExecutor:
    """Such a number of threads, started."""
    here, all_there = torch.get_num_threads(), Barrier(members)

    def arrive() -> None:
        torch.get_num_threads()  # a thread's first question sets it up, and would undo what was set before
        torch.set_num_threads(threads_each)  # of this thread's operators
        all_there.wait()

    pool = ThreadPoolExecutor(members, thread_name_prefix="crew")
    wait([pool.submit(arrive) for _ in range(members)])
    torch.set_num_threads(here)  # what new threads begin with
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # a forked process has no threads of its parent's


def scalars_side_by_side(
    functions: Sequence[Callable[[Tensor], Tensor]], features: Tensor, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """The scalar that each function gives for the features, forward and backward passes side by side.

    Gradients go to the features and to those `parameters`, all of them leaves, that a function uses. On a GPU, which
    one thread keeps busy, all are one graph.
    """
    if features.device.type != "cpu":
        return [function(features) for function in functions]
    return list(_Scalars.apply(functions, features, *parameters))


def scalars_in_turn(
    functions: Sequence[Callable[[Tensor], Tensor]], features: Tensor, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """The same in the room that one of them needs: its gradients are computed with it, before the next begins."""
    return list(_ScalarsInTurn.apply(functions, features, *parameters))


class _Scalars(torch.autograd.Function):
    """Every function has a graph of its own, which the thread that made it need not be the one to go back through."""

    @staticmethod
    def forward(
        ctx: Any, functions: Sequence[Callable[[Tensor], Tensor]], features: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.graphs = side_by_side([partial(_recorded, function, features) for function in functions])
        ctx.parameters = parameters
        return tuple(scalar.detach() for _, scalar in ctx.graphs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        def go_back(graph: tuple[Tensor, Tensor], gradient: Tensor) -> tuple[Tensor | None, ...]:
            own, scalar = graph
            return torch.autograd.grad(scalar, (own, *ctx.parameters), gradient, allow_unused=True)

        found = side_by_side([partial(go_back, *pair) for pair in zip(ctx.graphs, gradients, strict=True)])
        ctx.graphs = ctx.parameters = None
        return None, *(sum_of_known(each) for each in zip(*found, strict=True))


class _ScalarsInTurn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, functions: Sequence[Callable[[Tensor], Tensor]], features: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        scalars, ctx.found = [], []
        for function in functions:
            own, scalar = _recorded(function, features)
            ctx.found.append(torch.autograd.grad(scalar, (own, *parameters), allow_unused=True))
            scalars.append(scalar.detach())
        return tuple(scalars)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        factors, found, ctx.found = [gradient.item() for gradient in gradients], ctx.found, None

        def total(parts: Sequence[Tensor | None]) -> Tensor | None:
            pairs = zip(factors, parts, strict=True)
            return sum_of_known([part if part is None or factor == 1 else part * factor for factor, part in pairs])

        return None, *map(total, zip(*found, strict=True))


def _recorded(function: Callable[[Tensor], Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
    """A leaf for the features and the function's scalar for it, in a graph of their own."""
    with torch.enable_grad():
        own = features.detach().requires_grad_()
        return own, function(own)


def sum_of_known(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of those that are there, None where none is."""
    known = [tensor for tensor in tensors if tensor is not None]
    return sum(known[1:], known[0]) if known else None
