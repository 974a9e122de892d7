"""Maps as rows (pixels x channels), a few of them at a time, and the arithmetic on them that needs no new memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

TILE_BYTES = 8 * 2**20  # of the widest map

_aten = torch.ops.aten


def rows_of(maps: Tensor) -> Tensor:
    """A map (N, C, H, W) as rows (N * H * W, C), without a copy where it is channels last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def maps_of(rows: Tensor, images: int, height: int, width: int) -> Tensor:
    """Rows as a channels-last map; `images` -1: as many as there are."""
    return rows.view(images, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def tiles(size: int, *matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same `size` rows of every matrix, one tile after the other."""
    if matrices[0].shape[0] <= size:
        return iter((matrices,))  # small maps are many, and splitting them is much of their time
    return zip(*(torch.split(matrix, size) for matrix in matrices), strict=True)


def tile_rows(like: Tensor, channels: int) -> int:
    """How many rows of so many channels make a tile, of the type of `like`."""
    return max(1, TILE_BYTES // (like.element_size() * channels))


def whole_images(tile: int, pixels: int) -> int:
    """How many images of so many pixels make a tile of rows, one at least."""
    return max(1, tile // pixels)


def buffer_of(like: Tensor, rows: int) -> Tensor:
    """Room for a tile of a matrix."""
    return like.new_empty(min(rows, len(like)), like.shape[1])


def activate(values: Tensor, into: Tensor, relu: bool) -> None:
    """ReLU or swish."""
    if relu:
        torch.clamp_min(values, 0, out=into)
    else:
        _aten.silu.out(values, out=into)


def activation_gradient(gradient: Tensor, values: Tensor, into: Tensor, relu: bool) -> None:
    """Back through ReLU or swish; `into` may be the gradient."""
    if relu:
        _aten.threshold_backward.grad_input(gradient, values, 0, grad_input=into)
    else:
        _aten.silu_backward.grad_input(gradient, values, grad_input=into)


def normalize_in_place(maps: Tensor, eps: float) -> Tensor:
    """Batch statistics without affine parameters; returns 1 / standard deviation."""
    mean, scale = maps.new_empty(maps.shape[1]), maps.new_empty(maps.shape[1])
    _aten.native_batch_norm.out(
        maps, None, None, None, None, True, 0.0, eps, out=maps, save_mean=mean, save_invstd=scale
    )
    return scale


def normalize_backward(gradient: Tensor, normalized: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same from its output, as batch norm of what has mean 0 and deviation 1, times the scale.

    Also the sums over each channel of gradient times output.
    """
    found, products, _ = _batch_norm_backward(gradient, normalized, scale, [True, True, False])
    return found, products


def column_sums(gradient: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the rows of gradient times values, and of the gradient, in one pass: what batch norm's weights get."""
    maps, factors = (maps_of(matrix, 1, len(matrix), 1) for matrix in (gradient, values))
    _, ones = _mean_and_scale(gradient.shape[1], gradient.dtype)
    _, products, sums = _batch_norm_backward(maps, factors, ones, [False, True, True])
    return products, sums


def _batch_norm_backward(
    gradient: Tensor, normalized: Tensor, weight: Tensor, wanted: list[bool]
) -> tuple[Tensor, ...]:
    """The `wanted` gradients of what has mean 0 and deviation 1, of the weight (channels) and of the bias."""
    zeros, ones = _mean_and_scale(len(weight), weight.dtype)
    found: tuple[Tensor, ...] = _aten.native_batch_norm_backward(
        gradient, normalized, weight, None, None, zeros, ones, True, 0.0, wanted
    )
    return found


@lru_cache(maxsize=1024)
def _mean_and_scale(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of channels that are normalised: zeros and ones, not to be written."""
    return torch.zeros(channels, dtype=dtype), torch.ones(channels, dtype=dtype)
