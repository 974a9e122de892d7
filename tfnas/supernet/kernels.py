"""Gradients of depthwise kernels on a CPU.

Measured with torch 2.15 (oneDNN): the gradient of a 5x5 kernel takes ten times that of 3x3, while 5 rows by 3 columns
take little longer than 3x3. So 5x5 comes from two of these, the second on the same numbers two columns further on. On
maps of 4x4 both are slow; there it comes from the products of every pixel of one map with every pixel of the other.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

_aten: Any = torch.ops.aten
_SLOW, _COLUMNS = 5, 3
_MARGIN = _SLOW - _COLUMNS
FEW_PAIRS = 6**4  # of an input and an output pixel: maps of 6x6, or from 8x8 to 4x4


class Room(NamedTuple):
    """Where features wait for `kernel_gradient`, which then need not copy them.

    `maps` (N, C, H, W) are to be written, in memory channels last. `wide` (N * H * (W + 2) + 2, C), if there, has them
    in rows of two more columns, zeros before the first column and after the last row.
    """

    maps: Tensor
    wide: Tensor | None


def room_for(gradient: Tensor, like: Tensor, size: int, fills: bool) -> Room:
    """For features `like` these (N, C, H, W), which go with this gradient of the output of a kernel of that size.

    It `fills` the room with these, or leaves that to others.
    """
    images, channels, height, width = like.shape
    if size != _SLOW or height * width * gradient.shape[2] * gradient.shape[3] <= FEW_PAIRS:
        return Room(like if fills else torch.empty_like(like), None)
    wide = like.new_empty(images * height * (width + _MARGIN) + _MARGIN, channels)
    wide[-_MARGIN:] = 0
    inside = wide[:-_MARGIN].view(images, height, width + _MARGIN, channels)
    inside[:, :, :_MARGIN] = 0
    room = Room(inside[:, :, _MARGIN:].permute(0, 3, 1, 2), wide)
    if fills:
        room.maps.copy_(like)
    return room


def kernel_gradient(gradient: Tensor, room: Room, weight: Tensor, stride: int) -> Tensor:
    """Of a depthwise convolution (padding k // 2): the gradient (C, 1, k, k) of its weight, for odd k.

    `gradient` (N, C, H', W') is that of its output, channels last; its input is in the `room` made for it.
    """
    size, features = weight.shape[-1], room.maps
    if room.wide is not None:
        return _of_halves(gradient, room.wide, features.shape, stride)
    if size == _SLOW:
        return _of_few_pixels(gradient, features, size, stride)
    return _library(gradient, features, weight, stride, [size // 2, size // 2])


def _library(gradient: Tensor, features: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    steps, only_weight, groups = [stride, stride], [False, True, False], len(weight)
    found: Tensor = _aten.convolution_backward(
        gradient, features, weight, None, steps, padding, [1, 1], False, [0, 0], groups, only_weight
    )[1]
    return found


def _of_halves(gradient: Tensor, wide: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """A kernel of 3 columns meets, for output column w, columns stride * w - 2, -1, 0 of the features, as they lie in
    rows with two zeros before; and 0, 1, 2 where these are read from two columns further on.
    """
    images, channels, height, width = shape
    kernel = gradient.new_empty(channels, 1, _SLOW, _COLUMNS)
    left, right = (
        _library(
            gradient, rows.view(images, height, width + _MARGIN, channels).permute(0, 3, 1, 2), kernel, stride, [2, 0]
        )
        for rows in (wide[:-_MARGIN], wide[_MARGIN:])
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
