"""All networks of a space in one: shared weights, sink-connecting depth (TF-NAS, section 3.3).

A batch goes through it along one operation of each block (Path) or a weighted sum of all (Mixture). The supernet is
handed such a route and the weights of the depth choices; where those come from is not its business. State names are
those of the authors' search checkpoints (without `module.`), all weights at maximum width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.space import BlockPlace, Operation, SearchSpace
from tfnas.nn.blocks import Classifier, zero_biases
from tfnas.supernet.elastic import ActiveSlice, ElasticMBConv, SearchConv, cpu_kernels

T = TypeVar("T")


# ---- routes --------------------------------------------------------------------------------------------------------


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


def weighted_sum(operations: Sequence[ElasticMBConv], features: Tensor, weights: Tensor) -> Tensor:
    """What the operations of a block give for its input, each times its entry of `weights` (operations), in one sum.

    Gradients go to weights and features; the operations' own weights are held fixed.
    """
    kernels = cpu_kernels(features.device)
    if kernels is not None:
        return kernels.weighted_sum(operations, features, weights)
    if operations[0].low_memory:
        total = features.new_zeros(())
        for weight, operation in zip(weights, operations, strict=True):
            total = total + operation.weighted(features, weight)
        return total
    from tfnas.supernet.mixing import grouped_sum  # for GPUs only

    return grouped_sum(operations, features, weights)


# ---- the supernet ----------------------------------------------------------------------------------------------------


class SearchBlock(nn.Module):
    """The operations of one block, in the order of the space; `number` counts through all stages."""

    def __init__(self, space: SearchSpace, place: BlockPlace, number: int, low_memory: bool) -> None:
        super().__init__()
        self.number = number
        self.m_ops = nn.ModuleList(
            ElasticMBConv(space.block(place, operation, space.initial_width(place, operation)), low_memory)
            for operation in space.operations
        )

    def forward(self, features: Tensor, route: Route) -> Tensor:
        """The block's output along the route."""
        return route.through(self.number, self.m_ops, features)


class SearchStage(nn.Module):
    """Blocks in a row whose outputs all reach the sink, weighted by the depth choices."""

    def __init__(self, number: int, blocks: Sequence[SearchBlock], depth_choices: tuple[int, ...]) -> None:
        super().__init__()
        self.number = number
        self.depth_choices = depth_choices
        for position, block in enumerate(blocks, 1):
            self.add_module(f"block{position}", block)

    def forward(self, features: Tensor, route: Route, depth_weights: Tensor) -> Tensor:
        """The sink: the sum over depth choices d of depth_weights[d] * the output of block d (d = 0: the input).

        A route that has a depth leaves there, and weighs nothing.
        """
        end = route.depth(self.number)
        if end is not None:
            for block in islice(self.children(), end):
                features = block(features, route)
            return features
        weight_by_depth = dict(zip(self.depth_choices, depth_weights, strict=True))
        sink = features * weight_by_depth[0] if 0 in weight_by_depth else None
        for depth, block in enumerate(self.children(), 1):
            features = block(features, route)
            if depth in weight_by_depth:
                weighted = features * weight_by_depth[depth]
                sink = weighted if sink is None else sink + weighted
        assert sink is not None
        output: Tensor = sink
        return output


class Supernet(nn.Module):
    """The shared weights of a space for `num_classes` classes, initialised as PyTorch does with all biases 0.

    With `low_memory` no map inside an operation is saved for the backward pass, which computes them again, and nothing
    is computed in parallel.
    """

    def __init__(self, space: SearchSpace, num_classes: int, low_memory: bool = False) -> None:
        super().__init__()
        self.space, self.low_memory = space, low_memory
        self.first_stem = SearchConv(space.first_stem)
        self.second_stem = ElasticMBConv(space.second_stem, low_memory)
        self.blocks = [SearchBlock(space, place, number, low_memory) for number, place in enumerate(space.blocks)]
        self.stages: list[SearchStage] = []
        for index, (choices, first) in enumerate(zip(space.depth_choices, space.first_blocks, strict=True)):
            stage = SearchStage(index, self.blocks[first : first + space.stages[index].blocks], choices)
            self.add_module(f"stage{index + 1}", stage)
            self.stages.append(stage)
        self.feature_mix_layer = SearchConv(space.feature_mix)
        self.classifier = Classifier(space.feature_mix_channels, num_classes)
        zero_biases(self)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.classifier.linear.weight.device

    def forward(self, images: Tensor, route: Route, depth_weights: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W); `depth_weights` has a vector per stage that sums to 1."""
        return self.along(route, self.stem(images), depth_weights)

    def stem(self, images: Tensor) -> Tensor:
        """What comes before all choices, the same for every route: (N, 3, H, W) to the first stage's input."""
        features: Tensor = self.second_stem(self.first_stem(images))
        return features

    def along(self, route: Route, features: Tensor, depth_weights: Sequence[Tensor]) -> Tensor:
        """Logits of what `stem` gave."""
        for stage, weights in zip(self.stages, depth_weights, strict=True):
            features = stage(features, route, weights)
        logits: Tensor = self.classifier(self.feature_mix_layer(features))
        return logits

    def mixture_context(self) -> AbstractContextManager[None]:
        """For forward and backward passes of mixtures, whose operations a CPU computes in parallel."""
        kernels = cpu_kernels(self.device)
        return nullcontext() if kernels is None or self.low_memory else kernels.serial_operators()

    def operations(self) -> Iterator[tuple[int, int, ElasticMBConv]]:
        """Every searchable operation with its block number and operation index."""
        for number in range(len(self.blocks)):
            for index, operation in enumerate(self.block_operations(number)):
                yield number, index, operation

    def block_operations(self, number: int) -> list[ElasticMBConv]:
        """The operations of a block, in the order of the space."""
        return cast("list[ElasticMBConv]", list(self.blocks[number].m_ops))

    def widths(self) -> list[list[int]]:
        """Active channels of every operation: (blocks, operations)."""
        return self._table(lambda operation: operation.width)

    def set_widths(self, operations: Sequence[int], architecture: Architecture) -> None:
        """Bring the operations of an architecture to its widths; those whose width stays keep their channels.

        `operations` has the operation index of every block of the space.
        """
        for place in architecture.blocks:
            number = self.space.first_blocks[place.stage] + place.position
            operation = self.block_operations(number)[operations[number]]
            if operation.width != place.block.mid_channels:
                operation.set_width(place.block.mid_channels)

    def active_slices(self, with_grad: bool = False) -> dict[Tensor, ActiveSlice]:
        """The parameters that are used in part, with their active slices; `with_grad`: of operations with gradients."""
        return {
            parameter: active
            for _, _, operation in self.operations()
            if not with_grad or operation.depth_conv.weight.grad is not None
            for parameter, active in operation.active_slices().items()
        }

    def active_channels(self) -> list[list[Tensor]]:
        """Indices of the active channels of every operation, for checkpoints."""
        return self._table(lambda operation: operation.active.clone())

    def _table(self, value: Callable[[ElasticMBConv], T]) -> list[list[T]]:
        rows: list[list[T]] = [[] for _ in self.blocks]
        for number, _, operation in self.operations():
            rows[number].append(value(operation))
        return rows

    def set_active_channels(self, channels: Sequence[Sequence[Tensor]]) -> None:
        """Restore what `active_channels` gave. Raises InputError where it does not fit this space."""
        shape = [len(row) for row in channels]
        if shape != [len(block.m_ops) for block in self.blocks]:
            raise InputError(f"active channels of {shape} operations do not fit space {self.space.name}")
        for number, index, operation in self.operations():
            operation.set_active(channels[number][index])


# ---- shared weights ----------------------------------------------------------------------------------------------


@torch.no_grad()
def share_weights(supernet: Supernet) -> None:
    """Make the weights of every block's operations parts of fresh, larger ones, initialised as PyTorch does.

    With weights of its own, each of eight operations learns in one of eight steps and hands features of its own to the
    next block: sampled paths learn slowly. Here a step trains what the operations share: the narrower ones are slices
    of the widest, smaller kernels the centre of the largest, as in Single-Path NAS and Once-for-All; each keeps a
    momentum of its own. docs/benchmarks.md has the effect. The paper does not do this; the `imagenet` space does not
    either. Operations that do not expand share weights with each other alone: their depthwise channels are the block's
    input, those of the others combinations of it that the expansion has learned, so that the same kernel or projection
    would have to serve two kinds of channels.

    To be called where the supernet will compute: moving it to another device or layout, or copying it, gives every
    operation a copy. Loading a state does not.
    """
    space = supernet.space
    for place, block in zip(space.blocks, supernet.blocks, strict=True):
        for expands in (True, False):
            alike = [index for index, operation in enumerate(space.operations) if operation.expands == expands]
            if alike:
                whole = _large_enough(space, place, [space.operations[index] for index in alike])
                _make_parts([block.m_ops[index] for index in alike], whole, supernet.classifier.linear.weight)


def _make_parts(operations: Sequence[nn.Module], whole: nn.Module, like: Tensor) -> None:
    """Make the weights of operations parts of those of another, where `like` is and of its type."""
    whole = whole.to(like.device, like.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = dict(whole.named_parameters())
    for operation in operations:
        for name, parameter in operation.named_parameters():
            parameter.data = _part(weights[name].detach(), parameter.shape)


def _large_enough(space: SearchSpace, place: BlockPlace, operations: Sequence[Operation]) -> ElasticMBConv:
    """An operation of which these are parts: as wide as the widest, with the largest kernel and SE."""
    blocks = [space.block(place, operation, space.width_range(place, operation)[1]) for operation in operations]
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
