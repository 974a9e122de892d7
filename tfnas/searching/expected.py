"""Expected latency of a mixture, differentiable in its weights (TF-NAS, equations 5 and 9)."""

from __future__ import annotations

from collections.abc import Sequence

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
    blocks_ms = (weights * table_ms).sum(1)
    total = weights.new_tensor(base_ms)
    stages = zip(space.stages, space.first_blocks, space.depth_choices, depth_weights, strict=True)
    for stage, first, choices, stage_weights in stages:
        kept = weights.new_tensor([[float(position < depth) for position in range(stage.blocks)] for depth in choices])
        total = total + stage_weights @ (kept @ blocks_ms[first : first + stage.blocks])
    return total
