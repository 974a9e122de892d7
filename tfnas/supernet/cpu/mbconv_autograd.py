"""MBConvs of the supernet as differentiable functions, computed in parallel: one, or the weighted sum of a block's.

The same losses and gradients as the plain layers, up to rounding (tests/supernet/test_cpu_kernels.py). PyTorch splits
every operator over all threads and waits for the last of them, and a search step is made of thousands of small ones.
Given a whole operation of a block, or a whole path, each core works without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.core.mbconv_blocks import Block
from tfnas.nn.blocks import BATCH_NORM_EPS, MBConvWeights, to_maps, to_rows
from tfnas.supernet.cpu.mbconv_backward import BackwardPass, InputGradient, accumulate_input_grad
from tfnas.supernet.cpu.mbconv_forward import MBConvSpec, Moments, SavedTensors, forward_pass, input_moments
from tfnas.supernet.cpu.row_ops import (
    activation_gradient,
    normalization_gradient,
    normalize_and_activate,
    statistics,
    zero_sums,
)

T = TypeVar("T")
R = TypeVar("R")
# What normalising and activating a channel of a pixel takes, and squeeze-and-excite, in multiplications of a product
_POINTWISE_COST, _EXCITE_COST = 60, 20


class CandidateOp(Protocol):
    """What is needed of an operation of the supernet."""

    block: Block
    low_memory: bool

    @property
    def width(self) -> int:
        """Number of active channels."""
        ...

    def active_weights(self, frozen: bool = False) -> MBConvWeights:
        """Those of the active channels; `frozen`: without gradients."""
        ...


def mbconv(operation: CandidateOp, features: Tensor) -> Tensor:
    """Expansion, depthwise convolution, squeeze-and-excite and projection, each with batch statistics: no residual.

    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)), channels last. With `low_memory` the backward pass
    computes all maps inside again instead of saving them.
    """
    weights = operation.active_weights()
    output: Tensor = _MBConv.apply(features, _spec(operation), operation.low_memory, *weights)
    return output


def convolve(features: Tensor, weight: Tensor, stride: int, activation: str) -> Tensor:
    """Convolution (padding k // 2), batch statistics and activation: (N, in, H, W) to (N, out, ...), channels last."""
    if weight.shape[2:] == (1, 1) and stride == 1:
        rows = to_rows(features) @ weight.flatten(1).t()  # which leaves channels last, as a convolution may not
        maps = to_maps(rows, len(features), *features.shape[2:])
    else:
        maps = functional.conv2d(features, weight, stride=stride, padding=weight.shape[-1] // 2)
    output: Tensor = _NormalizeActivate.apply(maps, activation == "relu")
    return output


def weighted_sum(operations: Sequence[CandidateOp], features: Tensor, scalars: Tensor) -> Tensor:
    """The sum of what a block's operations give, each times its scalar, residuals included.

    `scalars` is (operations); gradients go to them and to the features, not to the operations' weights. Operations are
    computed in parallel. With `low_memory` one comes after the other, and the backward pass computes all maps inside
    them again instead of saving them.
    """
    output: Tensor = _WeightedSum.apply(features, scalars, input_moments(features), operations)
    return output


def _spec(operation: CandidateOp) -> MBConvSpec:
    return MBConvSpec(operation.block.stride, operation.block.activation == "relu")


class _MBConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, spec: MBConvSpec, low_memory: bool, *tensors: Tensor | None) -> Tensor:
        weights, ctx.spec = MBConvWeights._make(tensors), spec
        moments = _moments(features, weights)
        saved = forward_pass(features, moments, weights, spec)
        ctx.save_for_backward(features, *weights, *(() if low_memory else (*(moments or (None, None)), *saved)))
        return saved.projected

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, *rest = ctx.saved_tensors
        count = len(MBConvWeights._fields)
        weights, rest = MBConvWeights._make(rest[:count]), rest[count:]
        if rest:
            moments, saved = Moments(*rest[:2]) if weights.expansion is not None else None, SavedTensors(*rest[2:])
        else:
            moments = _moments(features, weights)
            saved = forward_pass(features, moments, weights, ctx.spec)
        needs_features, _, _, *needs_weights = ctx.needs_input_grad
        backward = BackwardPass(features, moments, weights, ctx.spec, saved, any(needs_weights))
        part = backward.run(gradient, None)
        to_features = accumulate_input_grad(part.rows, [part], features, moments) if needs_features else None
        return to_features, None, None, *backward.gradients


def _moments(features: Tensor, weights: MBConvWeights) -> Moments | None:
    """What an expansion needs of its input."""
    return None if weights.expansion is None else input_moments(features)


class _NormalizeActivate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, relu: bool) -> Tensor:
        rows = to_rows(features.detach())  # overwritten: nothing else uses the convolution's output
        mean, scale = statistics(rows, BATCH_NORM_EPS)
        activated = torch.empty_like(rows)
        normalize_and_activate(rows, mean, scale, activated, relu)
        ctx.relu = relu
        ctx.save_for_backward(rows, scale)
        return to_maps(activated, len(features), *features.shape[2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, scale = ctx.saved_tensors
        to_features, sums = torch.empty_like(rows), zero_sums(rows)
        activation_gradient(to_rows(gradient).contiguous(), rows, to_features, ctx.relu, sums)
        normalization_gradient(to_features, rows, scale, sums, to_features, len(rows))
        return to_maps(to_features, len(gradient), *gradient.shape[2:]), None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, scalars: Tensor, moments: Moments, operations: Sequence[CandidateOp]
    ) -> Tensor:
        block, low_memory = operations[0].block, operations[0].low_memory
        needs_features = ctx.needs_input_grad[0]  # a network's first choices have fixed features
        height, width = ((size - 1) // block.stride + 1 for size in features.shape[2:])
        outputs = features.new_empty(len(operations), len(features) * height * width, block.out_channels)

        def compute(index: int) -> tuple[Tensor | None, ...]:
            weights = operations[index].active_weights(frozen=True)
            saved = forward_pass(features, moments, weights, _spec(operations[index]), outputs[index])
            return (*weights, *saved) if needs_features and not low_memory else ()

        saved_of_all = [tensor for saved in _of_each(operations, compute) for tensor in saved]
        total = to_maps(torch.mv(outputs.flatten(1).t(), scalars).view_as(outputs[0]), -1, height, width)
        if block.has_residual:
            total.addcmul_(features, scalars.sum())
        ctx.operations = operations
        tensors = (None if needs_features else outputs, *(moments if saved_of_all else (None, None)), *saved_of_all)
        ctx.save_for_backward(features, scalars, *tensors)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, scalars, outputs, covariance, centred, *saved_of_all = ctx.saved_tensors
        operations: Sequence[CandidateOp] = ctx.operations
        has_residual = operations[0].block.has_residual
        output_grad = to_rows(gradient).view(-1)
        through_residual = torch.dot(output_grad, to_rows(features).view(-1)) if has_residual else 0
        if outputs is not None:
            return None, outputs.flatten(1) @ output_grad + through_residual, None, None

        moments = Moments(covariance, centred) if saved_of_all else input_moments(features)
        each, count = len(saved_of_all) // len(operations), len(MBConvWeights._fields)
        input_grads = features.new_empty(len(operations), *moments.centred.shape)

        def compute(index: int) -> InputGradient:
            spec, tensors = _spec(operations[index]), saved_of_all[index * each : (index + 1) * each]
            if tensors:
                weights, saved = MBConvWeights._make(tensors[:count]), SavedTensors._make(tensors[count:])
            else:
                weights = operations[index].active_weights(frozen=True)
                saved = forward_pass(features, moments, weights, spec)
            backward = BackwardPass(features, moments, weights, spec, saved, needs_weights=False)
            return backward.run(gradient, scalars[index], input_grads[index])

        parts = list(_of_each(operations, compute))
        to_features = accumulate_input_grad(input_grads.sum(0), parts, features, moments)
        if has_residual:
            to_features.addcmul_(gradient, scalars.sum())
        return to_features, torch.stack([part.scalar_grad for part in parts]) + through_residual, None, None


def _of_each(operations: Sequence[CandidateOp], compute: Callable[[int], R]) -> Iterable[R]:
    """What is computed of every operation, by its index: in parallel, the most expensive first, so that no thread waits
    long for the last; or, where memory is low, one when the one before has been used.
    """
    indices = range(len(operations))
    if operations[0].low_memory:
        return map(compute, indices)
    order = sorted(indices, key=lambda index: _cost(operations[index]), reverse=True)
    computed = dict(zip(order, parallel_map(compute, order), strict=True))
    return [computed[index] for index in indices]


def _cost(operation: CandidateOp) -> int:
    """In multiplications for a pixel."""
    block = operation.block
    products = block.kernel_size**2 + block.out_channels + (block.in_channels if block.expands else 0)
    others = _POINTWISE_COST + (_EXCITE_COST if block.se_channels else 0)
    return operation.width * (products + others)


# ---- parallel threads ------------------------------------------------------------------------------------------------


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
