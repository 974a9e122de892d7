"""Expected latency of a mixture, differentiable in its weights (TF-NAS, equations 5 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from tfnas.latency import LatencyTable
from tfnas.space import SearchSpace


def operations_ms(space: SearchSpace, table: LatencyTable, widths: Sequence[Sequence[int]]) -> Tensor:
    """Looked-up milliseconds (blocks, operations), float64, of every operation at its current width."""
    return torch.tensor(
        [
            [
                table.block_ms(space.block(place, operation, width), place.input_size)
                for operation, width in zip(space.operations, row, strict=True)
            ]
            for place, row in zip(space.blocks, widths, strict=True)
        ],
        dtype=torch.float64,
    )


def expected_ms(
    space: SearchSpace, table_ms: Tensor, base_ms: float, weights: Tensor, depth_weights: Sequence[Tensor]
) -> Tensor:
    """Expected milliseconds, a scalar: base + over stages and depths d, depth weight * latency of blocks 1..d.

    `table_ms` and the mixture's `weights` are (blocks, operations).
    """
    blocks = tuple(stage.blocks for stage in space.stages)
    kept = _kept(blocks, space.depth_choices, weights.dtype, weights.device) @ torch.cat(tuple(depth_weights))
    return base_ms + kept @ (weights * table_ms).sum(1)


@cache  # a device would have to wait for it to be handed over
def _kept(
    blocks: tuple[int, ...], depth_choices: tuple[tuple[int, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Which blocks each depth choice keeps: (blocks of all stages, choices of all stages), ones and zeros."""
    stages = [
        torch.tensor([[float(position < depth) for depth in choices] for position in range(number)])
        for number, choices in zip(blocks, depth_choices, strict=True)
    ]
    kept: Tensor = torch.block_diag(*stages)  # type: ignore[no-untyped-call]
    return kept.to(device, dtype)
