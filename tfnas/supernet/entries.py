"""The entries of a parameter that are in use, taken out and put back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tfnas.supernet.loops import loop_for


def entries_of(parameter: Tensor, dim: int, places: Tensor) -> Tensor:
    """Those at these places along a dimension, as `index_select` gives them; differentiable.

    The places (int64) are distinct and below the dimension's size, as an operation's active channels are; no one looks.
    """
    assert places.dtype is torch.int64 and places.is_contiguous()
    if parameter.requires_grad and torch.is_grad_enabled():
        output: Tensor = _Entries.apply(parameter, dim, places)
        return output
    return _taken(parameter, dim, places)


class _Entries(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, dim: int, places: Tensor) -> Tensor:
        ctx.shape, ctx.dim, ctx.places = parameter.shape, dim, places
        return _taken(parameter, dim, places)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.contiguous()
        if loop := loop_for("scatter", gradient):
            found = gradient.new_empty(ctx.shape)
            loop(*_arguments(gradient, ctx.places, found, ctx.shape, ctx.dim))
        else:
            found = gradient.new_zeros(ctx.shape).index_copy_(ctx.dim, ctx.places, gradient)
        return found, None, None


def _taken(parameter: Tensor, dim: int, places: Tensor) -> Tensor:
    loop = loop_for("gather", parameter)
    if loop is None:
        return parameter.index_select(dim, places)
    found = parameter.new_empty([*parameter.shape[:dim], len(places), *parameter.shape[dim + 1 :]])
    loop(*_arguments(parameter, places, found, parameter.shape, dim))
    return found


def _arguments(source: Tensor, places: Tensor, into: Tensor, shape: torch.Size, dim: int) -> tuple[int, ...]:
    """Of a loop, for the shape of the whole parameter."""
    return source.data_ptr(), places.data_ptr(), into.data_ptr(), *around(shape, dim), len(places)


def around(shape: torch.Size, dim: int) -> tuple[int, int, int]:
    """Numbers of entries before, along and after a dimension."""
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
