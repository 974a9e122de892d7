"""The entries of a parameter that are in use, taken out and put back."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class Pick:
    """Entries of several tensors, taken out of all of them at once: they are laid in a row, and one look fetches all.

    A GPU takes longer to start an operator than to carry out one of these. `wanted` has for every tensor to be made the
    places (int64) of its entries in that row, in its shape, or None; behind the last source is a zero if `zero` is set.
    Gradients go to sources of which no entry is wanted twice.
    """

    def __init__(self, sources: Sequence[Tensor], wanted: Sequence[Tensor | None], *, zero: bool = False) -> None:
        self.sources, self.zero = tuple(sources), zero
        self.shapes = [None if places is None else places.shape for places in wanted]
        self.places = torch.cat([places.reshape(-1) for places in wanted if places is not None])

    def taken(self, frozen: bool = False) -> list[Tensor | None]:
        """The tensors made; differentiable unless `frozen`. Under autocast they are of its type."""
        parts = [(source.detach() if frozen else source).reshape(-1) for source in self.sources]
        row = torch.cat([*parts, parts[0].new_zeros(1)] if self.zero else parts)
        entries, kind = entries_of(row, 0, self.places), row.device.type
        if torch.is_autocast_enabled(kind):
            entries = entries.to(torch.get_autocast_dtype(kind))  # else every layer casts its own
        shapes = [shape for shape in self.shapes if shape is not None]
        made = iter(torch.split(entries, [shape.numel() for shape in shapes]))
        return [None if shape is None else next(made).view(shape) for shape in self.shapes]


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
