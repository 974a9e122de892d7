"""Aligned initialisation: the operations of a block start from the same weights, so that paths agree from the start.

With independent initial weights every operation hands random features of its own to the next block, and each learns in
only one of eight steps: sampled paths learn slowly. Here the narrower operations start as slices of the widest, smaller
kernels as the centre of the largest. Each weight keeps the distribution of PyTorch's defaults up to a scale that batch
norm removes. Measured on digits: docs/benchmarks.md. The paper does not do this; the `imagenet` space does not either.
"""

from __future__ import annotations

import torch

from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import Supernet


@torch.no_grad()
def align_operations(supernet: Supernet) -> None:
    """Overwrite the convolutions of every operation with slices of its block's widest, largest-kernel operation."""
    for number, _ in enumerate(supernet.blocks):
        operations = supernet.block_operations(number)
        model = max(operations, key=lambda operation: (operation.max_width, operation.kernel_size))
        for operation in operations:
            if operation is not model:
                _copy_slices(model, operation)


def _copy_slices(model: ElasticMBConv, operation: ElasticMBConv) -> None:
    width = operation.max_width
    if model.inverted_bottleneck is not None and operation.inverted_bottleneck is not None:
        operation.inverted_bottleneck.weight.copy_(model.inverted_bottleneck.weight[:width])
    model_size, size = model.kernel_size, operation.kernel_size
    rim = (model_size - size) // 2
    if rim >= 0:  # a larger kernel on a narrower operation keeps its own weights around a common centre
        centre = model.depth_conv.weight[:width, :, rim : model_size - rim, rim : model_size - rim]
        operation.depth_conv.weight.copy_(centre)
    else:
        inner = slice(-rim, size + rim)
        operation.depth_conv.weight[:, :, inner, inner] = model.depth_conv.weight[:width]
    operation.point_linear.weight.copy_(model.point_linear.weight[:, :width])
