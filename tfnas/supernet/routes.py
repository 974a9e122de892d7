"""How a batch goes through the blocks: along one operation of each (Path) or a weighted sum of all (Mixture)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.mixing import weighted_sum


class Route(Protocol):
    """What the supernet asks in each block."""

    def through(self, block: int, operations: nn.ModuleList, features: Tensor) -> Tensor:
        """The output of block number `block` (counted through all stages) for its input."""
        ...

    def depth(self, stage: int) -> int | None:
        """After how many blocks it leaves a stage (counted from 0); None: at the sink, where all depths are weighed."""
        ...


@dataclass(frozen=True)
class Path:
    """One operation per block: their indices in the order of the space.

    With `depths`, one of every stage's choices, it is one network, as derived ones are; else it goes to the sinks.
    """

    operations: tuple[int, ...]
    depths: tuple[int, ...] | None = None

    def through(self, block: int, operations: nn.ModuleList, features: Tensor) -> Tensor:
        """The output of the chosen operation; it is not multiplied by anything."""
        output: Tensor = operations[self.operations[block]](features)
        return output

    def depth(self, stage: int) -> int | None:
        """That of the path, if it has one."""
        return None if self.depths is None else self.depths[stage]


@dataclass(frozen=True, eq=False)
class Mixture:
    """All operations in every block, weighted: `weights` is (blocks, operations).

    Gradients go to these and to the features; the operations' own weights are held fixed.
    """

    weights: Tensor

    def through(self, block: int, operations: nn.ModuleList, features: Tensor) -> Tensor:
        """The weighted sum of what all operations give."""
        return weighted_sum(cast("list[ElasticMBConv]", list(operations)), features, self.weights[block])

    def depth(self, stage: int) -> None:
        """A mixture is of all depths."""


def one_hot_depths(depth_choices: Sequence[Sequence[int]], depths: Sequence[int]) -> tuple[Tensor, ...]:
    """Depth weights that keep exactly `depths[s]` blocks of stage s; for use in place of softmax(betas)."""
    return tuple(
        torch.tensor([float(choice == depth) for choice in choices])
        for choices, depth in zip(depth_choices, depths, strict=True)
    )
