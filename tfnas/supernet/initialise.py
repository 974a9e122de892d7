"""Shared weights: the operations of a block are parts of one set of weights, so that a step trains what they share.

With weights of its own, each of eight operations learns in one of eight steps and hands features of its own to the
next block: sampled paths learn slowly. Here the narrower operations are slices of the widest, smaller kernels the
centre of the largest, as in Single-Path NAS and Once-for-All; each keeps a momentum of its own. What it does is in
docs/benchmarks.md. The paper does not do this; the `imagenet` space does not either.

Operations that do not expand share weights with each other alone: their depthwise channels are the block's input, those
of the others combinations of it that the expansion has learned, so that the same kernel or projection would have to
serve two kinds of channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tfnas.core.space import BlockPlace, Operation, SearchSpace
from tfnas.nn.blocks import zero_biases
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import Supernet


@torch.no_grad()
def share_weights(supernet: Supernet) -> None:
    """Make the weights of every block's operations parts of fresh, larger ones, initialised as PyTorch does.

    To be called where the supernet will compute: moving it to another device or layout, or copying it, gives every
    operation a copy. Loading a state does not.
    """
    space = supernet.space
    for place, block in zip(space.blocks, supernet.blocks, strict=True):
        for expands in (True, False):
            alike = [index for index, operation in enumerate(space.operations) if operation.expands == expands]
            if alike:
                whole = _large_enough(space, place, [space.operations[index] for index in alike])
                _make_parts([block.m_ops[index] for index in alike], whole, supernet.classifier.linear.weight)


def _make_parts(operations: Sequence[nn.Module], whole: nn.Module, like: Tensor) -> None:
    """Make the weights of operations parts of those of another, where `like` is and of its type."""
    whole = whole.to(like.device, like.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = dict(whole.named_parameters())
    for operation in operations:
        for name, parameter in operation.named_parameters():
            parameter.data = _part(weights[name].detach(), parameter.shape)


def _large_enough(space: SearchSpace, place: BlockPlace, operations: Sequence[Operation]) -> ElasticMBConv:
    """An operation of which these are parts: as wide as the widest, with the largest kernel and SE."""
    blocks = [space.block(place, operation, space.width_range(place, operation)[1]) for operation in operations]
    widest = max(blocks, key=lambda block: block.mid_channels)
    whole = ElasticMBConv(
        dataclasses.replace(
            widest,
            kernel_size=max(block.kernel_size for block in blocks),
            se_channels=max(block.se_channels for block in blocks),
        )
    )
    zero_biases(whole)
    return whole


def _part(whole: Tensor, shape: torch.Size) -> Tensor:
    """A view: the first channels, and the centre of a kernel."""
    for dim, size in enumerate(shape):
        start = (whole.shape[dim] - size) // 2 if dim >= 2 else 0
        whole = whole.narrow(dim, start, size)
    return whole
