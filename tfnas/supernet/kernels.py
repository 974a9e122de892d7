"""Gradients of depthwise kernels on a CPU.

Measured with torch 2.15 (oneDNN): the gradient of a 5x5 kernel takes ten times that of 3x3, while 5 rows by 3 columns
take as long as 3x3. So 5x5 comes from two of these, the second on the same numbers two columns further on. On maps of
4x4 both are slow; there it comes from the products of every pixel of one map with every pixel of the other.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

_aten: Any = torch.ops.aten
_SLOW, _COLUMNS = 5, 3
FEW_PAIRS = 6**4  # of an input and an output pixel: maps of 6x6, or from 8x8 to 4x4


def kernel_gradient(gradient: Tensor, features: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Of a depthwise convolution (padding k // 2): the gradient (C, 1, k, k) of its weight, for odd k.

    `gradient` (N, C, H', W') is that of its output, `features` (N, C, H, W) its input, both channels last.
    """
    size = weight.shape[-1]
    if size == _SLOW and features[0, 0].numel() * gradient[0, 0].numel() <= FEW_PAIRS:
        return _of_few_pixels(gradient, features, size, stride)
    if size == _SLOW:
        return _of_five(gradient, features, stride)
    return _library(gradient, features, weight, stride, [size // 2, size // 2])


def _library(gradient: Tensor, features: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    steps, only_weight, groups = [stride, stride], [False, True, False], len(weight)
    found: Tensor = _aten.convolution_backward(
        gradient, features, weight, None, steps, padding, [1, 1], False, [0, 0], groups, only_weight
    )[1]
    return found


def _of_five(gradient: Tensor, features: Tensor, stride: int) -> Tensor:
    """Both maps in rows of `pitch` columns with zeros around; the gradient begins in column 1, padding lies before it.

    A kernel of 3 columns then meets, for output column w, the columns lead + stride * w - 2, -1, 0 of the features;
    and 0, 1, 2 where these are read from two columns further on.
    """
    images, channels, height, width = features.shape
    out_height, out_width = gradient.shape[2:]
    lead = stride + 1
    pitch = max(width + lead + 2, stride * (out_width + 1) + 2)
    pitch += -pitch % stride
    rows = features.new_zeros(images * height * pitch + 2, channels)
    padded = rows[:-2].view(images, height, pitch, channels)
    padded[:, :, lead : lead + width] = features.permute(0, 2, 3, 1)
    wide = gradient.new_zeros(images, out_height, (pitch - 1) // stride + 1, channels)
    wide[:, :, 1 : 1 + out_width] = gradient.permute(0, 2, 3, 1)
    kernel = gradient.new_empty(channels, 1, 5, _COLUMNS)
    left, right = (
        _library(
            wide.permute(0, 3, 1, 2),
            rows[start : len(rows) - 2 + start].view(images, height, pitch, channels).permute(0, 3, 1, 2),
            kernel,
            stride,
            [2, 1],
        )
        for start in (0, 2)
    )
    return torch.cat((left, right[..., 1:]), 3)


def _of_few_pixels(gradient: Tensor, features: Tensor, size: int, stride: int) -> Tensor:
    """Products of all pairs of pixels, summed over images; then over the pairs that meet in an entry of the kernel."""
    images, channels = features.shape[:2]
    of_outputs = gradient.permute(1, 0, 2, 3).reshape(channels, images, -1).contiguous()
    of_inputs = features.permute(1, 0, 2, 3).reshape(channels, images, -1).contiguous()
    products = torch.bmm(of_outputs.transpose(1, 2), of_inputs).flatten(1)
    meetings = _meetings(tuple(gradient.shape[2:]), tuple(features.shape[2:]), size, stride)
    return (products @ meetings.to(products)).view(channels, 1, size, size)


@cache
def _meetings(outputs: tuple[int, ...], inputs: tuple[int, ...], size: int, stride: int) -> Tensor:
    """1 where two pixels meet in an entry of the kernel, else 0 (pairs of an output and an input, entries)."""

    def along(outputs: int, inputs: int) -> Tensor:
        met = stride * torch.arange(outputs)[:, None] + torch.arange(size) - size // 2
        return (met[..., None] == torch.arange(inputs)).float()

    down, across = map(along, outputs, inputs)
    return torch.einsum("hiy,wjx->hwyxij", down, across).reshape(-1, size * size)
