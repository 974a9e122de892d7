"""The weighted sum of a block's operations (TF-NAS, section 3.2), grouped into a few wide operations for a GPU.

A GPU takes longer to start an operator than to carry out most of a search's, so all operations of a block that have a
kernel size in common are one wide operation: they expand one input, or take it as it is, every channel of a depthwise
convolution and of batch norm is by itself, and squeeze-and-excite is two products with blocks of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.nn.blocks import MBConvWeights, to_maps, to_rows
from tfnas.supernet.elastic import ElasticMBConv, FusedGather, batch_normalize


class OperationGroup(NamedTuple):
    """Operations of a block that have a kernel size in common, by their numbers in the block.

    Those that do not expand stand beside each other: last among the plain ones, first among the excited ones.
    """

    plain: tuple[int, ...]
    excited: tuple[int, ...]
    """Those with squeeze-and-excite, whose channels follow the others'."""


class GroupedWeights(NamedTuple):
    """Weights of a group as one operation, or the indices of their entries; squeeze-and-excite is two linear layers."""

    expansion: Tensor | None
    depthwise: Tensor
    reduce: Tensor | None = None
    reduce_bias: Tensor | None = None
    expand: Tensor | None = None
    expand_bias: Tensor | None = None


class GroupedBlock(NamedTuple):
    """How a block's operations are grouped while these channels of theirs are active."""

    active: tuple[Tensor, ...]
    groups: tuple[OperationGroup, ...]
    gather: FusedGather
    """Of every group its `GroupedWeights`, and then the projection (out, width) of each of its operations."""


_grouped_blocks: WeakKeyDictionary[ElasticMBConv, GroupedBlock] = WeakKeyDictionary()  # by a block's first operation


def _grouped_block(operations: Sequence[ElasticMBConv]) -> GroupedBlock:
    grouped = _grouped_blocks.get(operations[0])
    if grouped is None or list(map(id, grouped.active)) != [id(operation.active) for operation in operations]:
        grouped = _grouped_blocks[operations[0]] = _make_grouped_block(operations)
    return grouped


def _make_grouped_block(operations: Sequence[ElasticMBConv]) -> GroupedBlock:
    sources: list[Tensor] = []
    indices: list[MBConvWeights] = []
    zero = 0  # after all that are concatenated
    for operation in operations:
        indices.append(operation.active_indices(zero))
        own = [part.parameter for part in operation.parts() if part is not None]
        sources += own
        zero += sum(source.numel() for source in own)
    groups: list[OperationGroup] = []
    gathered: list[Tensor | None] = []
    for size in sorted({operation.kernel_size for operation in operations}):
        numbers = [number for number, operation in enumerate(operations) if operation.kernel_size == size]
        plain = [number for number in numbers if indices[number].reduce is None]
        excited = [number for number in numbers if indices[number].reduce is not None]
        plain.sort(key=lambda number: indices[number].expansion is None)
        excited.sort(key=lambda number: indices[number].expansion is not None)
        groups.append(OperationGroup(tuple(plain), tuple(excited)))
        members = [indices[number] for numbers in groups[-1] for number in numbers]
        gathered += [*_grouped_indices(members, zero), *(member.projection.flatten(1) for member in members)]
    active = tuple(operation.active for operation in operations)
    return GroupedBlock(active, tuple(groups), FusedGather(sources, gathered, fixed=True))


def _grouped_indices(members: Sequence[MBConvWeights], zero: int) -> GroupedWeights:
    """Places of a group's weights from those of its members; at `zero` is what stands between blocks of matrices."""

    def together(name: str, combine: Callable[[list[Tensor]], Tensor]) -> Tensor | None:
        parts = [getattr(member, name) for member in members if getattr(member, name) is not None]
        return combine(parts) if parts else None

    def in_blocks(parts: list[Tensor]) -> Tensor:
        matrix: Tensor = torch.block_diag(*(part.flatten(1) - zero for part in parts)) + zero  # type: ignore[no-untyped-call]
        return matrix

    return GroupedWeights(
        together("expansion", torch.cat),
        _present(together("depthwise", torch.cat)),
        reduce=together("reduce", in_blocks),
        reduce_bias=together("reduce_bias", torch.cat),
        expand=together("expand", in_blocks),
        expand_bias=together("expand_bias", torch.cat),
    )


def grouped_sum(operations: Sequence[ElasticMBConv], features: Tensor, scalars: Tensor) -> Tensor:
    """As `supernet.weighted_sum`, by one wide operation for each kernel size."""
    grouped, first = _grouped_block(operations), operations[0]
    gathered = iter(grouped.gather.gather())
    projected: dict[int, Tensor] = {}
    for group in grouped.groups:
        wide = GroupedWeights._make(islice(gathered, len(GroupedWeights._fields)))
        for numbers, maps in zip(group, _before_projection(operations, features, wide, group), strict=True):
            # A product takes some columns of a matrix as they are, where a convolution would have to copy its channels
            widths = [operations[number].width for number in numbers]
            columns = torch.split(to_rows(maps), widths, 1) if numbers else ()
            for number, rows in zip(numbers, columns, strict=True):
                projected[number] = rows @ _present(next(gathered)).t()
    height, width = ((size - 1) // first.stride + 1 for size in features.shape[2:])
    rows = torch.cat([projected[number] for number in range(len(operations))], 1)
    outputs = to_rows(batch_normalize(to_maps(rows, len(features), height, width)))
    # Of every operation's channels, each goes to its channel of the sum, times the operation's scalar
    squares = torch.eye(first.block.out_channels, dtype=scalars.dtype, device=scalars.device)
    diagonals = (scalars.view(-1, 1, 1) * squares).flatten(0, 1).to(outputs.dtype)
    total = to_maps(outputs @ diagonals, len(features), height, width)
    return total + features * scalars.sum() if first.has_residual else total


def _before_projection(
    operations: Sequence[ElasticMBConv], features: Tensor, wide: GroupedWeights, group: OperationGroup
) -> tuple[Tensor, Tensor]:
    """What a group's operations compute before their projections: the plain ones, and those that are excited."""
    first = operations[(group.plain or group.excited)[0]]  # for what all have in common
    maps = _expanded(operations, features, wide, group)
    channels = len(wide.depthwise)
    maps = functional.conv2d(maps, wide.depthwise, stride=first.stride, padding=first.padding, groups=channels)
    maps = first.act(batch_normalize(maps))
    if wide.reduce is None or wide.expand is None:
        return maps, maps[:, :0]
    plain, excited = torch.split(maps, [channels - len(wide.expand), len(wide.expand)], 1)
    reduced = first.act(functional.linear(excited.mean((2, 3)), wide.reduce, wide.reduce_bias))
    gates = torch.sigmoid(functional.linear(reduced, wide.expand, wide.expand_bias))
    return plain, excited * gates[:, :, None, None]


def _expanded(
    operations: Sequence[ElasticMBConv], features: Tensor, wide: GroupedWeights, group: OperationGroup
) -> Tensor:
    """What a group's depthwise convolutions take: the input expanded, or itself for those that do not expand."""
    expand = [operations[number].inverted_bottleneck is not None for number in (*group.plain, *group.excited)]
    as_it_is = [features] * expand.count(False)
    if wide.expansion is None:
        return torch.cat(as_it_is, 1)
    maps: Tensor = operations[0].act(batch_normalize(functional.conv2d(features, wide.expansion)))
    if not as_it_is:
        return maps
    before = sum(operations[number].width for number in group.plain[: expand.index(False)])
    first, last = torch.split(maps, [before, maps.shape[1] - before], 1)
    return torch.cat([first, *as_it_is, last], 1)


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
