"""Losses of several paths through a supernet for one input, each with its gradients before the next needs memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tfnas.supernet.dispatch import cpu_kernels

LossFunction = Callable[[Tensor], Tensor]


def path_losses(
    functions: Sequence[LossFunction], features: Tensor, parameters: Sequence[Tensor], low_memory: bool
) -> list[Tensor]:
    """The scalar that each function gives for the features, differentiable.

    Gradients go to the features and to those `parameters`, all of them leaves, that a function uses. With `low_memory`
    gradients of one are computed before the next function is called; a CPU computes them in parallel; elsewhere, where
    one thread keeps the device busy, all are one graph.
    """
    kernels = cpu_kernels(features.device)
    if kernels is None and not low_memory:
        return [function(features) for function in functions]
    mapped = _map if kernels is None or low_memory else kernels.parallel_map
    return list(_Losses.apply(mapped, functions, features, *parameters))


def _map(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


class _Losses(torch.autograd.Function):
    """Computes gradients in the forward pass: every function has a graph of its own, which is gone after it."""

    @staticmethod
    def forward(ctx: Any, mapped: Any, functions: Sequence[LossFunction], features: Tensor, *parameters: Tensor) -> Any:
        found = mapped(partial(_loss_and_gradients, features, parameters), functions)
        ctx.gradients = [gradients for _, gradients in found]
        return tuple(loss for loss, _ in found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        factors, gradients, ctx.gradients = [output.item() for output in outputs], ctx.gradients, None

        def total(parts: Sequence[Tensor | None]) -> Tensor | None:
            scaled = [
                part if factor == 1 else part * factor
                for factor, part in zip(factors, parts, strict=True)
                if part is not None
            ]
            return sum(scaled[1:], scaled[0]) if scaled else None

        return None, None, *map(total, zip(*gradients, strict=True))


def _loss_and_gradients(
    features: Tensor, parameters: Sequence[Tensor], function: LossFunction
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Of a leaf in place of the features; None for the parameters that the function does not use."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        loss = function(leaf)
    return loss.detach(), torch.autograd.grad(loss, (leaf, *parameters), allow_unused=True)
