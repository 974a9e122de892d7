"""How a batch goes through the blocks: along one operation of each (Path) or a weighted sum of all (Mixture).

And the losses of several paths for one batch, and which operations and depths an architecture has in its space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.supernet.elastic import ElasticMBConv, cpu_kernels
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


# ---- losses of paths ---------------------------------------------------------------------------------------------

LossFunction = Callable[[Tensor], Tensor]


def path_losses(
    functions: Sequence[LossFunction], features: Tensor, parameters: Sequence[Tensor], low_memory: bool
) -> list[Tensor]:
    """The scalar that each function gives for the features, differentiable.

    Gradients go to the features and to those `parameters`, all of them leaves, that a function uses. With `low_memory`
    gradients of one are computed before the next function is called; a CPU computes them in parallel; elsewhere, where
    one thread keeps the device busy, all are one graph.
    """
    kernels = cpu_kernels(features.device)
    if kernels is None and not low_memory:
        return [function(features) for function in functions]
    mapped = _map if kernels is None or low_memory else kernels.parallel_map
    return list(_Losses.apply(mapped, functions, features, *parameters))


def _map(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


class _Losses(torch.autograd.Function):
    """Computes gradients in the forward pass: every function has a graph of its own, which is gone after it."""

    @staticmethod
    def forward(ctx: Any, mapped: Any, functions: Sequence[LossFunction], features: Tensor, *parameters: Tensor) -> Any:
        found = mapped(partial(_loss_and_gradients, features, parameters), functions)
        ctx.gradients = [gradients for _, gradients in found]
        return tuple(loss for loss, _ in found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        factors, gradients, ctx.gradients = [output.item() for output in outputs], ctx.gradients, None

        def total(parts: Sequence[Tensor | None]) -> Tensor | None:
            scaled = [
                part if factor == 1 else part * factor
                for factor, part in zip(factors, parts, strict=True)
                if part is not None
            ]
            return sum(scaled[1:], scaled[0]) if scaled else None

        return None, None, *map(total, zip(*gradients, strict=True))


def _loss_and_gradients(
    features: Tensor, parameters: Sequence[Tensor], function: LossFunction
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Of a leaf in place of the features; None for the parameters that the function does not use."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        loss = function(leaf)
    return loss.detach(), torch.autograd.grad(loss, (leaf, *parameters), allow_unused=True)


def operations_and_depths(space: SearchSpace, architecture: Architecture) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The operation index of every block of the space (0 for dropped ones) and the depth of every stage.

    Raises InputError where the architecture is none of the space.
    """
    depths = tuple(len(blocks) for blocks in architecture.stages)
    offered = space.depth_choices
    if len(depths) != len(offered) or any(depth not in choices for depth, choices in zip(depths, offered, strict=True)):
        raise InputError(f"space {space.name} offers no network whose stages have {list(depths)} blocks")
    operations = [0] * len(space.blocks)
    for place in architecture.blocks:
        number = space.first_blocks[place.stage] + place.position
        operations[number] = space.operation_index(space.blocks[number], place.block)
    return tuple(operations), depths
