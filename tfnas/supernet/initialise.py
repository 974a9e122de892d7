"""Shared weights: the operations of a block are parts of one set of weights, so that a step trains what they share.

With weights of its own, each of eight operations learns in one of eight steps and hands features of its own to the
next block: sampled paths learn slowly. Here the narrower operations are slices of the widest, smaller kernels the
centre of the largest, as in Single-Path NAS and Once-for-All; each keeps a momentum of its own. What it does is in
docs/benchmarks.md. The paper does not do this; the `imagenet` space does not either.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from tfnas.nn.blocks import zero_biases
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import Supernet


@torch.no_grad()
def share_weights(supernet: Supernet) -> None:
    """Make the weights of every block's operations parts of fresh, larger ones, initialised as PyTorch does.

    To be called where the supernet will compute: moving it to another device or layout, or copying it, gives every
    operation a copy. Loading a state does not.
    """
    example = supernet.classifier.linear.weight
    for number, _ in enumerate(supernet.blocks):
        whole = _large_enough(supernet, number).to(example.device, example.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        weights = dict(whole.named_parameters())
        for operation in supernet.block_operations(number):
            for name, parameter in operation.named_parameters():
                parameter.data = _part(weights[name].detach(), parameter.shape)


def _large_enough(supernet: Supernet, number: int) -> ElasticMBConv:
    """An operation of which all of a block are parts: as wide as the widest, with the largest kernel and SE."""
    space, place = supernet.space, supernet.space.blocks[number]
    blocks = [space.block(place, operation, space.width_range(place, operation)[1]) for operation in space.operations]
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
