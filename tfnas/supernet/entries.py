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


_ALIGNED = 8  # entries of two bytes


class Pick:
    """Entries of several tensors, taken out of all of them at once: they are laid in a row, and one look fetches all.

    A GPU takes longer to start an operator than to carry out one of these. `wanted` has for every tensor to be made the
    places (int64) of its entries in that row, in its shape, or None. If all is `fixed`, there is a zero behind the last
    source; else gradients go to the sources, and no entry may be wanted twice.
    """

    def __init__(self, sources: Sequence[Tensor], wanted: Sequence[Tensor | None], *, fixed: bool = False) -> None:
        self.sources, self.fixed = tuple(sources), fixed
        self.number = len(wanted)
        there = [(number, places) for number, places in enumerate(wanted) if places is not None]
        # Products are quickest where matrices begin at multiples of 16 bytes: those that would move the next go last
        there.sort(key=lambda one: one[1].numel() % _ALIGNED != 0)
        self.order = [(number, places.shape) for number, places in there]
        row = sum(source.numel() for source in sources)
        short = fixed and row < torch.iinfo(torch.int32).max  # half the room; gradients want int64
        places = torch.cat([places.reshape(-1) for _, places in there])
        self.places = places.int() if short else places

    def taken(self, frozen: bool = False) -> list[Tensor | None]:
        """The tensors made; differentiable unless `frozen` or fixed. Under autocast they are of its type."""
        frozen = frozen or self.fixed
        parts = [(source.detach() if frozen else source).reshape(-1) for source in self.sources]
        row = torch.cat([*parts, parts[0].new_zeros(1)] if self.fixed else parts)
        entries = row.index_select(0, self.places) if frozen else entries_of(row, 0, self.places)
        kind = row.device.type
        if torch.is_autocast_enabled(kind):
            entries = entries.to(torch.get_autocast_dtype(kind))  # else every layer casts its own
        made: list[Tensor | None] = [None] * self.number
        pieces = torch.split(entries, [shape.numel() for _, shape in self.order])
        for (number, shape), piece in zip(self.order, pieces, strict=True):
            made[number] = piece.view(shape)
        return made


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
