"""Maps as rows (pixels x channels), a few of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

TILE_BYTES = 8 * 2**20  # of the widest map


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
