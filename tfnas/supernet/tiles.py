"""MBConvs of the supernet as differentiable functions: one alone, or a block's operations in one weighed sum.

They compute as `passes` does and save for the backward pass what it needs. Where a mixture's input has few channels,
the expansion is computed again: that takes no longer than fetching it would.

The same losses and gradients as the plain layers compute, up to rounding (tests/supernet/test_tiles.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tfnas.supernet.crew import side_by_side
from tfnas.supernet.passes import BackwardPass, Kept, Kind, Moments, Sent, Weights, forward_pass, input_moments

KEPT_FROM = 32  # input channels: below, computing an expansion again takes no longer than fetching it

T = TypeVar("T")


def mbconv(features: Tensor, weights: Weights, kind: Kind, low_memory: bool) -> Tensor:
    """Expansion, depthwise convolution, squeeze-and-excite and projection, each with batch statistics: no residual.

    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)), channels last. With `low_memory` the backward pass
    computes all maps inside again instead of keeping them.
    """
    output: Tensor = _MBConv.apply(features, kind, low_memory, torch.is_grad_enabled(), *weights)
    return output


class Member(NamedTuple):
    """One of the operations that a mixture weighs; their weights are held fixed."""

    weights: Weights
    kind: Kind


def mixture(features: Tensor, scalars: Tensor, members: Sequence[Member], residual: bool, low_memory: bool) -> Tensor:
    """The sum of what `mbconv` gives of all members, each times its scalar, plus its input where there is a `residual`.

    `scalars` is (members); gradients go to them and to the features. Members are computed side by side. With
    `low_memory` one comes after the other, and the backward pass computes all maps inside them again instead of
    keeping them.
    """
    tensors = [tensor for member in members for tensor in member.weights]
    kinds = [member.kind for member in members]
    output: Tensor = _Mixture.apply(features, scalars, input_moments(features), kinds, residual, low_memory, *tensors)
    return output


class _MBConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Tensor, kind: Kind, low_memory: bool, records: bool, *tensors: Tensor | None
    ) -> Tensor:
        weights, ctx.kind = Weights._make(tensors), kind
        moments = _moments(features, weights)
        kept = forward_pass(features, moments, weights, kind, keeps_expanded=records and not low_memory)
        ctx.save_for_backward(features, *weights, *(() if low_memory else (*(moments or (None, None)), *kept)))
        return kept.projected

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, *rest = ctx.saved_tensors
        count = len(Weights._fields)
        weights, saved = Weights._make(rest[:count]), rest[count:]
        if saved:
            moments, kept = Moments(*saved[:2]) if weights.expansion is not None else None, Kept(*saved[2:])
        else:
            moments = _moments(features, weights)
            kept = forward_pass(features, moments, weights, ctx.kind, keeps_expanded=False)
        needs_features, _, _, _, *needs_weights = ctx.needs_input_grad
        backward = BackwardPass(features, moments, weights, ctx.kind, kept, any(needs_weights))
        sent = backward.run(gradient, None)
        to_features = sent.arrive(features, moments) if needs_features else None
        return to_features, None, None, None, *backward.gradients


def _moments(features: Tensor, weights: Weights) -> Moments | None:
    """What an expansion needs of its input."""
    return None if weights.expansion is None else input_moments(features)


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        scalars: Tensor,
        moments: Moments,
        kinds: Sequence[Kind],
        residual: bool,
        low_memory: bool,
        *tensors: Tensor | None,
    ) -> Tensor:
        members = _members(kinds, tensors)
        ctx.learns = ctx.needs_input_grad[0]  # a network's first choices have fixed features
        ctx.low_memory = low_memory
        keeps_expanded = ctx.learns and not low_memory and features.shape[1] >= KEPT_FROM

        def compute(index: int) -> tuple[Tensor, Sequence[Tensor | None]]:
            kept = forward_pass(features, moments, *members[index], keeps_expanded)
            if not ctx.learns:
                return kept.projected, (kept.projected,)
            return kept.projected, () if low_memory else kept

        total = features * scalars.sum() if residual else None
        kept_of_all: list[Tensor | None] = []
        for scalar, (output, kept) in zip(scalars, _of_all(members, compute, low_memory), strict=True):
            total = torch.zeros_like(output) if total is None else total
            total.addcmul_(output, scalar)
            kept_of_all.extend(kept)
        assert total is not None
        ctx.kinds, ctx.residual = kinds, residual
        ctx.save_for_backward(features, scalars, *((None, None) if low_memory else moments), *tensors, *kept_of_all)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, scalars, covariance, centred, *rest = ctx.saved_tensors
        count = len(ctx.kinds) * len(Weights._fields)
        members, kept_of_all = _members(ctx.kinds, rest[:count]), rest[count:]
        each = len(kept_of_all) // len(members)

        nothing = (None,) * (4 + count)
        through_residual = (gradient * features).sum() if ctx.residual else 0
        if not ctx.learns:
            return None, torch.stack([(gradient * output).sum() for output in kept_of_all]) + through_residual, *nothing

        moments = input_moments(features) if ctx.low_memory else Moments(covariance, centred)

        def compute(index: int) -> Sent:
            member, own = members[index], kept_of_all[index * each : (index + 1) * each]
            kept = forward_pass(features, moments, *member, keeps_expanded=False) if ctx.low_memory else Kept(*own)
            backward = BackwardPass(features, moments, *member, kept, weighs=False)
            return backward.run(gradient, scalars[index])

        to_scalars, total = torch.zeros_like(scalars), None
        for index, sent in enumerate(_of_all(members, compute, ctx.low_memory)):
            to_scalars[index] = sent.to_scalar
            total = sent if total is None else total.plus(sent)
        assert total is not None
        to_features = total.arrive(features, moments)
        if ctx.residual:
            to_features.addcmul_(gradient, scalars.sum())
        return to_features, to_scalars + through_residual, *nothing


def _members(kinds: Sequence[Kind], tensors: Sequence[Tensor | None]) -> list[Member]:
    """From the weights of all in a row."""
    count = len(Weights._fields)
    rows = (tensors[place : place + count] for place in range(0, len(tensors), count))
    return [Member(Weights._make(row), kind) for row, kind in zip(rows, kinds, strict=True)]


def _of_all(members: Sequence[Member], compute: Callable[[int], T], in_turn: bool) -> Iterator[T]:
    """What is computed of every member, by its index: side by side, the dearest first, so that none waits long for the
    last; or `in_turn` when it is asked for, which takes the room of one only.
    """
    places = range(len(members))
    if in_turn:
        return map(compute, places)

    def cost(index: int) -> int:
        weights = members[index].weights
        return weights.depthwise.numel() + weights.projection.numel()

    order = sorted(places, key=cost, reverse=True)
    found = dict(zip(order, side_by_side([partial(compute, index) for index in order]), strict=True))
    return (found[index] for index in places)
