"""Active slices of parameters: taken out for computing, differentiable; one gather for many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ActiveSlice(NamedTuple):
    """The entries of a parameter that are in use: those at these indices (int64, sorted) along dimension `dim`."""

    dim: int
    indices: Tensor


def take_active(parameter: Tensor, dim: int, indices: Tensor) -> Tensor:
    """As `index_select`, differentiable. The indices are distinct, so that gradients are copied and not added."""
    if parameter.requires_grad and torch.is_grad_enabled():
        output: Tensor = _TakeActive.apply(parameter, dim, indices)
        return output
    return parameter.index_select(dim, indices)


class _TakeActive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, dim: int, indices: Tensor) -> Tensor:
        ctx.shape, ctx.dim, ctx.indices = parameter.shape, dim, indices
        return parameter.index_select(dim, indices)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.new_zeros(ctx.shape).index_copy_(ctx.dim, ctx.indices, gradient), None, None


_ALIGNMENT = 8  # entries of two bytes


class FusedGather:
    """Entries of several tensors by one operator: they are concatenated, and one index fetches all.

    A GPU takes longer to start an operator than to carry out one of these. `indices` has for every tensor to be made
    the places (int64) of its entries in the concatenation, in its shape, or None. With `fixed` sources there is a zero
    behind the last one; else gradients go to the sources, and no entry may be fetched twice.
    """

    def __init__(self, sources: Sequence[Tensor], indices: Sequence[Tensor | None], *, fixed: bool = False) -> None:
        self.sources, self.fixed = tuple(sources), fixed
        self.number = len(indices)
        present = [(number, places) for number, places in enumerate(indices) if places is not None]
        # Products are fastest where matrices begin at multiples of 16 bytes: those that would move the next go last
        present.sort(key=lambda one: one[1].numel() % _ALIGNMENT != 0)
        self.order = [(number, places.shape) for number, places in present]
        length = sum(source.numel() for source in sources)
        short = fixed and length < torch.iinfo(torch.int32).max  # half the memory; gradients need int64
        index = torch.cat([places.reshape(-1) for _, places in present])
        self.index = index.int() if short else index

    def gather(self, frozen: bool = False) -> list[Tensor | None]:
        """The tensors made; differentiable unless `frozen` or fixed. Under autocast they are of its type."""
        frozen = frozen or self.fixed
        parts = [(source.detach() if frozen else source).reshape(-1) for source in self.sources]
        joined = torch.cat([*parts, parts[0].new_zeros(1)] if self.fixed else parts)
        entries = joined.index_select(0, self.index) if frozen else take_active(joined, 0, self.index)
        device_type = joined.device.type
        if torch.is_autocast_enabled(device_type):
            entries = entries.to(torch.get_autocast_dtype(device_type))  # else every layer casts its own
        made: list[Tensor | None] = [None] * self.number
        pieces = torch.split(entries, [shape.numel() for _, shape in self.order])
        for (number, shape), piece in zip(self.order, pieces, strict=True):
            made[number] = piece.view(shape)
        return made
