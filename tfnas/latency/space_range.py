"""What a space can reach with a table: the range, its breakdown, which operations are expensive, and what limits it.

    found = space_range(tfnas.space("digits"), LatencyTable.load(path))
    found.lowest_ms, found.highest_ms, found.expensive_traits

Figures are those of the table, whatever it counts; names in `_ms` mean that then.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfnas.core.errors import InputError
from tfnas.core.space import Operation, SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.spaces.mbconv.mbconv_family import block_counts


@dataclass(frozen=True, kw_only=True)
class RangeConfig:
    """Settings of the range command.

    Raises:
        InputError: A value is outside its range, or neither space nor table is named.
    """

    space: str | None = None
    """Search space: imagenet, cifar, digits or a YAML file. Default: the one the table was measured for."""
    lookup_path: str | None = None
    """Latency table. Default: the bundled one of the space."""
    target_lat: float | None = None
    """Report whether this target (milliseconds, or the unit of the table) is reachable; exit status 3 if it is not."""
    num_classes: int | None = None
    """Classes of the networks. Default: as many as the table was measured for."""
    image_size: int | None = None
    """Side of the input in pixels; there must be a table for it. Default: the space's."""
    width_multiple: int | None = None
    """Only widths that are multiples of this. Default: that of the space, normally 1."""
    json: bool = False
    """Print one JSON object with unrounded figures, instead of tables."""
    seed: int = 2
    """Accepted for consistency; this command uses no random numbers."""

    def __post_init__(self) -> None:
        if self.space is None and self.lookup_path is None:
            raise InputError("give --space (imagenet, cifar, digits or a YAML file), or a table with --lookup_path")
        for name in ("num_classes", "image_size", "width_multiple"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be 1 or more, got {value}")
        if self.target_lat is not None and not (math.isfinite(self.target_lat) and self.target_lat > 0):
            raise InputError(f"--target_lat must be a positive number, got {self.target_lat}")


FloatArray = NDArray[np.float64]

EXPENSIVE = 1.2
"""Expensive on a device is what costs so many times more than its multiply-accumulates suggest."""

_HEAD_PARTS = ("feature_mix", "classifier")
_PART_NAMES = {"base": "stem and head", "first_stem": "first stem", "second_stem": "second stem"}


@dataclass(frozen=True)
class PartRange:
    """A part of the network in the space's lowest and in its highest choice."""

    name: str
    lowest_ms: float
    highest_ms: float


@dataclass(frozen=True)
class StageRange(PartRange):
    """A stage in the lowest and in the highest choice, and how its depth bounds the space.

    `shallower_ms` is the space's lowest were one block fewer allowed, None where the shapes forbid that;
    `deeper_ms` its highest with one block more, None where the table has no such block.
    """

    depths: tuple[int, ...]
    shallower_ms: float | None
    deeper_ms: float | None


@dataclass(frozen=True)
class OperationCost:
    """An operation at a search's initial width, against the cheapest operation of the same block.

    All are medians over the blocks: `ratio` of the cost, `macs_ratio` of the multiply-accumulates, and `excess` of the
    one over the other. `without_ms` is the range of the space without the operation, None where it is the only one.
    """

    name: str
    ratio: float
    macs_ratio: float
    excess: float
    without_ms: tuple[float, float] | None


@dataclass(frozen=True)
class TraitCost:
    """What a trait of operations costs: against the operations that differ in nothing else (`against`).

    `ratio`, `macs_ratio` and `excess` are medians over blocks and pairs, `worst_ratio` is that of `worst_stage` alone.
    `remaining_operations` are the operations without it, `without_ms` is the range of the space with these only.
    """

    name: str
    against: str
    ratio: float
    macs_ratio: float
    excess: float
    worst_stage: str
    worst_ratio: float
    remaining_operations: tuple[str, ...]
    without_ms: tuple[float, float]

    @property
    def is_expensive(self) -> bool:
        """Whether it is expensive on the device."""
        return self.excess >= EXPENSIVE


@dataclass(frozen=True)
class SpaceRange:
    """The range of a space in a table, and all that explains it. `operations` are in the order of their cost."""

    space: SearchSpace
    table: LatencyTable
    lowest_ms: float
    highest_ms: float
    base: tuple[PartRange, ...]
    stages: tuple[StageRange, ...]
    operations: tuple[OperationCost, ...]
    traits: tuple[TraitCost, ...]

    @property
    def base_ms(self) -> float:
        """What every network of the space has: stem, head, and what a correction adds."""
        return sum(part.lowest_ms for part in self.base)

    @property
    def expensive_traits(self) -> tuple[TraitCost, ...]:
        """What is expensive on the device, the worst first; none if the table counts and does not measure."""
        expensive = [trait for trait in self.traits if trait.is_expensive and self.table.cost.is_time]
        return tuple(sorted(expensive, key=lambda trait: -trait.excess))


def space_range(space: SearchSpace, table: LatencyTable, num_classes: int | None = None) -> SpaceRange:
    """What a space reaches with a table. Raises InputError when the table lacks a block or the number of classes."""
    lowest_ms, highest_ms = table.range_ms(space, num_classes)
    costs, macs = _at_initial_widths(space, table)

    def without(drop: Callable[[Operation], bool]) -> tuple[tuple[str, ...], tuple[float, float]] | None:
        remaining = tuple(operation for operation in space.operations if not drop(operation))
        if not remaining:
            return None
        fewer = dataclasses.replace(space, operations=remaining)
        return tuple(operation.name for operation in remaining), table.range_ms(fewer, num_classes)

    return SpaceRange(
        space=space,
        table=table,
        lowest_ms=lowest_ms,
        highest_ms=highest_ms,
        base=tuple(_base(table, num_classes)),
        stages=tuple(_stages(space, table, num_classes)),
        operations=tuple(_operations(space, costs, macs, without)),
        traits=tuple(_traits(space, costs, macs, without)),
    )


_Without = Callable[[Callable[[Operation], bool]], "tuple[tuple[str, ...], tuple[float, float]] | None"]


def _at_initial_widths(space: SearchSpace, table: LatencyTable) -> tuple[FloatArray, FloatArray]:
    """Milliseconds and multiply-accumulates [blocks, operations] at the widths that a search starts from."""
    blocks = [
        [(block, place.input_size) for block in row]
        for place, row in zip(space.blocks, space.initial_blocks, strict=True)
    ]
    costs = np.array([[table.block_ms(*entry) for entry in row] for row in blocks])
    macs = np.array([[block_counts(*entry).macs for entry in row] for row in blocks], dtype=np.float64)
    return costs, macs


def _base(table: LatencyTable, num_classes: int | None) -> Iterator[PartRange]:
    parts = table.base_parts_ms(num_classes)
    head_ms = sum(parts.pop(name) for name in _HEAD_PARTS if name in parts)
    correction_ms = parts.pop("correction", None)
    for name, ms in parts.items():
        yield PartRange(_PART_NAMES.get(name, name), ms, ms)
    if head_ms:
        yield PartRange("head", head_ms, head_ms)
    if correction_ms is not None:
        yield PartRange("correction", correction_ms, correction_ms)


def _stages(space: SearchSpace, table: LatencyTable, num_classes: int | None) -> Iterator[StageRange]:
    lowest, highest = table.extremes_ms(space)
    for number, (low, high) in enumerate(zip(lowest, highest, strict=True)):
        stage = space.stages[number]
        shallower = _range_with_stage(space, table, number, stage.blocks, stage.min_blocks - 1, num_classes)
        deeper = _range_with_stage(space, table, number, stage.blocks + 1, stage.min_blocks, num_classes)
        yield StageRange(
            name=f"stage {number + 1}",
            lowest_ms=sum(low),
            highest_ms=sum(high),
            depths=space.depth_choices[number],
            shallower_ms=None if shallower is None else shallower[0],
            deeper_ms=None if deeper is None else deeper[1],
        )


def _range_with_stage(
    space: SearchSpace, table: LatencyTable, number: int, blocks: int, min_blocks: int, num_classes: int | None
) -> tuple[float, float] | None:
    """The range of the space with another depth of a stage; None where there is no such space or no price for it."""
    stages = list(space.stages)
    stages[number] = dataclasses.replace(stages[number], blocks=blocks, min_blocks=min_blocks)
    try:
        return table.range_ms(dataclasses.replace(space, stages=tuple(stages)), num_classes)
    except InputError:
        return None


def _operations(space: SearchSpace, costs: FloatArray, macs: FloatArray, without: _Without) -> list[OperationCost]:
    cheapest = costs.argmin(axis=1)[:, None]
    ratios = costs / np.take_along_axis(costs, cheapest, axis=1)
    macs_ratios = macs / np.take_along_axis(macs, cheapest, axis=1)
    found = []
    for index, operation in enumerate(space.operations):
        rest = without(lambda other, dropped=operation: other == dropped)  # type: ignore[misc]
        found.append(
            OperationCost(
                name=operation.name,
                ratio=_median(ratios[:, index]),
                macs_ratio=_median(macs_ratios[:, index]),
                excess=_median(ratios[:, index] / macs_ratios[:, index]),
                without_ms=None if rest is None else rest[1],
            )
        )
    return sorted(found, key=lambda operation: operation.ratio)


@dataclass(frozen=True)
class _Trait:
    """A trait of operations, and the operation that has all but it."""

    name: str
    against: str
    has: Callable[[Operation], bool]
    plain: Callable[[Operation], Operation]


def _comparable_traits(operations: Sequence[Operation]) -> Iterator[_Trait]:
    """SE, every larger kernel against the smallest, every larger expansion against `_plain_expansion`."""
    kernels = sorted({operation.kernel_size for operation in operations})
    expansions = sorted({operation.expansion for operation in operations})
    yield _Trait("SE", "none", lambda o: o.se, lambda o: dataclasses.replace(o, se=False))
    for kernel in kernels[1:]:
        yield _Trait(
            f"k{kernel}",
            f"k{kernels[0]}",
            lambda o, k=kernel: o.kernel_size == k,  # type: ignore[misc]
            lambda o: dataclasses.replace(o, kernel_size=kernels[0]),
        )
    for expansion in expansions[1:]:
        plain = _plain_expansion(operations, expansion)
        yield _Trait(
            f"e{expansion}",
            f"e{plain}",
            lambda o, e=expansion: o.expansion == e,  # type: ignore[misc]
            lambda o, p=plain: dataclasses.replace(o, expansion=p),  # type: ignore[misc]
        )


def _plain_expansion(operations: Sequence[Operation], expansion: int) -> int:
    """The smallest expansion that operations differ in from a larger one alone; 1 where there is no other.

    Expansion 1 lacks a layer: what widening costs shows against an operation that widens less.
    """
    smaller = {operation.expansion for operation in operations if operation.expansion < expansion}
    in_order = sorted(smaller, key=lambda other: (other == 1, other))

    def has_pair(other: int) -> bool:
        alike = (operation for operation in operations if operation.expansion == other)
        return any(dataclasses.replace(operation, expansion=expansion) in operations for operation in alike)

    return next(filter(has_pair, in_order), in_order[0])


def _traits(space: SearchSpace, costs: FloatArray, macs: FloatArray, without: _Without) -> Iterator[TraitCost]:
    operations = space.operations
    for trait in _comparable_traits(operations):
        pairs = [
            (index, operations.index(trait.plain(operation)))
            for index, operation in enumerate(operations)
            if trait.has(operation) and trait.plain(operation) in operations
        ]
        rest = without(trait.has)
        if not pairs or rest is None:
            continue
        having, plain = (list(side) for side in zip(*pairs, strict=True))
        ratios, macs_ratios = costs[:, having] / costs[:, plain], macs[:, having] / macs[:, plain]
        by_stage = [
            _median(ratios[first : first + stage.blocks])
            for first, stage in zip(space.first_blocks, space.stages, strict=True)
        ]
        worst = int(np.argmax(by_stage))
        yield TraitCost(
            name=trait.name,
            against=trait.against,
            ratio=_median(ratios),
            macs_ratio=_median(macs_ratios),
            excess=_median(ratios / macs_ratios),
            worst_stage=f"stage {worst + 1}",
            worst_ratio=by_stage[worst],
            remaining_operations=rest[0],
            without_ms=rest[1],
        )


def _median(values: FloatArray) -> float:
    return float(np.median(values))
