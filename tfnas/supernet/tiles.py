"""MBConvs of the supernet as differentiable functions: one alone, or a block's operations in one weighed sum.

They compute as `passes` does and save for the backward pass what it needs.

The same losses and gradients as the plain layers compute, up to rounding (tests/supernet/test_tiles.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tfnas.supernet.arithmetic import (
    activation_gradient,
    no_sums,
    normalization_gradient,
    normalize_and_activate,
    statistics,
)
from tfnas.supernet.crew import side_by_side
from tfnas.supernet.passes import BackwardPass, Kept, Kind, Moments, Sent, Weights, arrive, forward_pass, input_moments
from tfnas.supernet.rows import maps_of, rows_of

T = TypeVar("T")


def mbconv(features: Tensor, weights: Weights, kind: Kind, low_memory: bool) -> Tensor:
    """Expansion, depthwise convolution, squeeze-and-excite and projection, each with batch statistics: no residual.

    (N, in, H, W) to (N, out, ceil(H / stride), ceil(W / stride)), channels last. With `low_memory` the backward pass
    computes all maps inside again instead of keeping them.
    """
    output: Tensor = _MBConv.apply(features, kind, low_memory, *weights)
    return output


def normalized(features: Tensor, activation: str, eps: float) -> Tensor:
    """Batch statistics and activation of a map (N, C, H, W), which this takes over; channels last."""
    output: Tensor = _Normalized.apply(features, activation == "relu", eps)
    return output


class Member(NamedTuple):
    """One of the operations that a mixture weighs; their weights are held fixed.

    `weights` gathers those of the active channels, where and when they are needed. `cost` tells which takes longer.
    """

    weights: Callable[[], Weights]
    kind: Kind
    cost: int


def mixture(features: Tensor, scalars: Tensor, members: Sequence[Member], residual: bool, low_memory: bool) -> Tensor:
    """The sum of what `mbconv` gives of all members, each times its scalar, plus its input where there is a `residual`.

    `scalars` is (members); gradients go to them and to the features. Members are computed side by side. With
    `low_memory` one comes after the other, and the backward pass computes all maps inside them again instead of
    keeping them.
    """
    moments = input_moments(features)
    output: Tensor = _Mixture.apply(features, scalars, moments, members, residual, low_memory)
    return output


class _MBConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, kind: Kind, low_memory: bool, *tensors: Tensor | None) -> Tensor:
        weights, ctx.kind = Weights._make(tensors), kind
        moments = _moments(features, weights)
        kept = forward_pass(features, moments, weights, kind)
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
            kept = forward_pass(features, moments, weights, ctx.kind)
        needs_features, _, _, *needs_weights = ctx.needs_input_grad
        backward = BackwardPass(features, moments, weights, ctx.kind, kept, any(needs_weights))
        sent = backward.run(gradient, None)
        to_features = arrive(sent.rows, [sent], features, moments) if needs_features else None
        return to_features, None, None, *backward.gradients


def _moments(features: Tensor, weights: Weights) -> Moments | None:
    """What an expansion needs of its input."""
    return None if weights.expansion is None else input_moments(features)


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, relu: bool, eps: float) -> Tensor:
        rows = rows_of(features.detach())  # changed in place, which is no one's affair
        mean, scale = statistics(rows, eps)
        found = torch.empty_like(rows)
        normalize_and_activate(rows, mean, scale, found, relu)
        ctx.relu = relu
        ctx.save_for_backward(rows, scale)
        return maps_of(found, len(features), *features.shape[2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, scale = ctx.saved_tensors
        found, sums = torch.empty_like(rows), no_sums(rows)
        activation_gradient(rows_of(gradient).contiguous(), rows, found, ctx.relu, sums)
        normalization_gradient(found, rows, scale, sums, found, len(rows))
        return maps_of(found, len(gradient), *gradient.shape[2:]), None, None


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        scalars: Tensor,
        moments: Moments,
        members: Sequence[Member],
        residual: bool,
        low_memory: bool,
    ) -> Tensor:
        learns = ctx.needs_input_grad[0]  # a network's first choices have fixed features
        kind = members[0].kind  # all have its stride and number of channels
        height, width = ((size - 1) // kind.stride + 1 for size in features.shape[2:])
        outputs = features.new_empty(len(members), len(features) * height * width, kind.out_channels)

        def compute(index: int) -> Sequence[Tensor | None]:
            weights = members[index].weights()
            kept = forward_pass(features, moments, weights, members[index].kind, outputs[index])
            return (*weights, *kept) if learns and not low_memory else ()

        kept_of_all = [tensor for kept in _of_all(members, compute, low_memory) for tensor in kept]
        total = maps_of(torch.mv(outputs.flatten(1).t(), scalars).view_as(outputs[0]), -1, height, width)
        if residual:
            total.addcmul_(features, scalars.sum())
        ctx.members, ctx.learns, ctx.residual, ctx.low_memory = members, learns, residual, low_memory
        kept = moments if kept_of_all else (None, None)
        ctx.save_for_backward(features, scalars, None if learns else outputs, *kept, *kept_of_all)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, scalars, outputs, covariance, centred, *kept_of_all = ctx.saved_tensors
        members: Sequence[Member] = ctx.members
        nothing = (None,) * 4
        arrived = rows_of(gradient).view(-1)
        through_residual = torch.dot(arrived, rows_of(features).view(-1)) if ctx.residual else 0
        if outputs is not None:
            return None, outputs.flatten(1) @ arrived + through_residual, *nothing

        moments = input_moments(features) if ctx.low_memory else Moments(covariance, centred)
        each, count = len(kept_of_all) // len(members), len(Weights._fields)
        arriving = features.new_empty(len(members), *moments.centred.shape)

        def compute(index: int) -> Sent:
            kind, saved = members[index].kind, kept_of_all[index * each : (index + 1) * each]
            if saved:
                weights, kept = Weights._make(saved[:count]), Kept._make(saved[count:])
            else:
                weights = members[index].weights()
                kept = forward_pass(features, moments, weights, kind)
            backward = BackwardPass(features, moments, weights, kind, kept, weighs=False)
            return backward.run(gradient, scalars[index], arriving[index])

        sent = list(_of_all(members, compute, ctx.low_memory))
        to_features = arrive(arriving.sum(0), sent, features, moments)
        if ctx.residual:
            to_features.addcmul_(gradient, scalars.sum())
        return to_features, torch.stack([one.to_scalar for one in sent]) + through_residual, *nothing


def _of_all(members: Sequence[Member], compute: Callable[[int], T], in_turn: bool) -> Iterator[T]:
    """What is computed of every member, by its index: side by side, the dearest first, so that none waits long for the
    last; or `in_turn` when it is asked for, which takes the room of one only.
    """
    places = range(len(members))
    if in_turn:
        return map(compute, places)
    order = sorted(places, key=lambda index: members[index].cost, reverse=True)
    found = dict(zip(order, side_by_side([partial(compute, index) for index in order]), strict=True))
    return (found[index] for index in places)
