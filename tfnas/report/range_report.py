"""The range of a space for people, as JSON, and as the explanation of a target outside. 80 columns, text 100."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from tfnas.core.errors import TfnasError
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import TargetOutOfRange
from tfnas.latency.reachable import Band
from tfnas.latency.space_range import OperationCost, PartRange, SpaceRange, StageRange, TraitCost, space_range
from tfnas.spaces.mbconv.space_file import space_arguments
from tfnas.utils.text import command_line, print_whole

_FIRST_COLUMN = 14
_LONGEST_LINE = 100
_HANGING = 11
_WHAT_IT_IS = (
    "costs and MACs: at a search's initial widths, against the cheapest operation of the block (SE, larger "
    "kernels and expansions: against the operation that differs in nothing else), medians over the blocks"
)


def print_range(console: Console, found: SpaceRange, target_ms: float | None = None) -> None:
    """The range, its breakdown, what operations cost, which are expensive on the device, and what bounds the range."""
    _say_all(console, _head(found, target_ms))
    console.print()
    print_whole(console, _parts_table(found))
    console.print()
    print_whole(console, _operations_table(found))
    _say_all(console, [("", _WHAT_IT_IS)])
    console.print()
    _say_all(console, _lines(found))


def _say_all(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    """Names and lines, wrapped in files too: what programs read is the JSON."""
    for name, text in lines:
        wrapped = textwrap.fill(
            f"{name:<{_HANGING}}{text}",
            min(console.width, _LONGEST_LINE) if console.is_terminal else _LONGEST_LINE,
            subsequent_indent=" " * _HANGING,
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(wrapped, markup=False, highlight=False, soft_wrap=True)


def _head(found: SpaceRange, target_ms: float | None) -> Iterator[tuple[str, str]]:
    space, table = found.space, found.table
    sizes = f"{len(space.blocks)} blocks of {len(space.operations)} operations, {space.image_size} px"
    yield "space", f"{space.name}: {sizes}"
    yield "table", table.description
    yield "", table.source
    yield "reachable", f"{table.cost.number(found.lowest_ms)} to {table.quantity(found.highest_ms)}"
    if target_ms is not None:
        inside = Band.of(target_ms).overlaps(found.lowest_ms, found.highest_ms)
        yield "target", f"{table.quantity(target_ms, 6)} is {'inside' if inside else 'outside'}"


def _table(names: Iterable[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for index, name in enumerate(names):
        side, least = ("right", 0) if index else ("left", _FIRST_COLUMN)
        table.add_column(name, justify=side, no_wrap=True, min_width=least)  # type: ignore[arg-type]
    return table


def _aligned(table: LatencyTable, largest: float) -> Callable[[float | None], str]:
    """Writes figures of one table with as many decimals each; nothing for None."""
    decimals = max(0, 3 - math.floor(math.log10(largest)))

    def written(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.{decimals}f}" if table.cost.is_time else table.cost.number(value)

    return written


def _parts_table(found: SpaceRange) -> Table:
    """Each part in the lowest and the highest choice, with its share, and how a stage's depth bounds the range."""
    unit, number = found.table.unit, _aligned(found.table, found.highest_ms)
    parts: tuple[PartRange, ...] = (*found.base, *found.stages)
    fewer = any(stage.shallower_ms is not None for stage in found.stages)
    names = ["breakdown", f"lowest {unit}", "share", f"highest {unit}", "share", "blocks", "highest + 1"]
    table = _table([*names, "lowest - 1"] if fewer else names)

    def shares(part: PartRange) -> Iterator[str]:
        for value, total in ((part.lowest_ms, found.lowest_ms), (part.highest_ms, found.highest_ms)):
            yield from (number(value), f"{100 * value / total:.0f} %")

    for part in parts:
        table.add_row(part.name, *shares(part), *_depth_cells(part, number)[: None if fewer else 2])
    table.add_row("in all", *shares(PartRange("", found.lowest_ms, found.highest_ms)))
    return table


def _depth_cells(part: PartRange, number: Callable[[float | None], str]) -> tuple[str, ...]:
    """How many blocks a stage keeps; the space's highest with one more and its lowest with one fewer."""
    if not isinstance(part, StageRange):
        return ()
    least, most = min(part.depths), max(part.depths)
    blocks = f"{least}" if least == most else f"{least} to {most}"
    return blocks, number(part.deeper_ms), number(part.shallower_ms)


def _operations_table(found: SpaceRange) -> Table:
    """What each operation and each trait costs, and what the space reaches without it."""
    number = _aligned(found.table, found.highest_ms)
    table = _table(["operation", "costs", "its MACs", "per MAC", f"without: lowest {found.table.unit}", "highest"])
    rows: list[tuple[str, OperationCost | TraitCost]] = [(cost.name, cost) for cost in found.operations]
    traits = [(t.name if t.against == "none" else f"{t.name} for {t.against}", t) for t in found.traits]
    for name, cost in (*rows, *traits):
        if traits and name == traits[0][0]:
            table.add_row()
        ratios = (f"{ratio:.2f} x" for ratio in (cost.ratio, cost.macs_ratio, cost.excess))
        table.add_row(name, *ratios, *(number(end) for end in cost.without_ms or (None, None)))
    return table


def _lines(found: SpaceRange) -> Iterator[tuple[str, str]]:
    first, last = found.operations[0], found.operations[-1]
    if last is not first:
        yield "cheapest", f"{first.name}; most expensive {last.name} ({last.ratio:.1f} x)"
    if found.table.cost.is_time:
        for index, trait in enumerate(found.expensive_traits):
            yield "expensive" if index == 0 else "", expensive_text(found, trait)
        if not found.expensive_traits and found.traits:
            yield "expensive", "none: no kind of operation costs much more than its MACs suggest"
    for name, lines in (("lowest", lower_lines(found)), ("highest", higher_lines(found))):
        *_, bound = lines  # what a block more or fewer would give stands in the table
        yield name, bound
    if any(stage.deeper_ms or stage.shallower_ms for stage in found.stages):
        yield "+ 1, - 1", "what the highest and the lowest would be with one block more, or fewer, in that stage"


def range_document(found: SpaceRange, target_ms: float | None = None) -> dict[str, Any]:
    """Everything as plain data; `unit` says what the figures in `_ms` are."""
    document: dict[str, Any] = {
        "space": found.space.name,
        "table": str(found.table.path or found.table.source),
        "table_fingerprint": found.table.fingerprint,
        "unit": found.table.unit,
        "lowest_ms": found.lowest_ms,
        "highest_ms": found.highest_ms,
        "parts": [dataclasses.asdict(part) for part in found.base],
        "stages": [dataclasses.asdict(stage) for stage in found.stages],
        "operations": [dataclasses.asdict(operation) for operation in found.operations],
        "traits": [{**dataclasses.asdict(trait), "is_dear": trait in found.expensive_traits} for trait in found.traits],
    }
    if target_ms is not None:
        document["target_ms"] = target_ms
        document["target_is_inside"] = Band.of(target_ms).overlaps(found.lowest_ms, found.highest_ms)
    return document


# ---- what bounds the range --------------------------------------------------------------------------------------


def explained(error: TfnasError) -> str:
    """The message of an error; of a target out of range also the latency breakdown, what bounds it, and the command."""
    if not isinstance(error, TargetOutOfRange):
        return str(error)
    space, table, num_classes = error.space, error.table, error.num_classes
    below, found = error.unmet.target < error.unmet.lowest, space_range(space, table, num_classes)
    lines = [str(error), shares_text(found, below), *(lower_lines(found) if below else higher_lines(found))]
    if table.path is not None:
        lines.append(f"details: {range_command(space, table, num_classes, error.space_argument)}")
    return "\n  ".join(lines)


def range_command(
    space: SearchSpace, table: LatencyTable, num_classes: int | None = None, named: str | None = None
) -> str:
    """The command that shows the range of a space with a table that was read from a file."""
    words = space_arguments(space, named)
    if num_classes not in (None, table.num_classes):
        words += ["--num_classes", str(num_classes)]
    return command_line("latency range", *words, "--lookup_path", str(table.path))


def shares_text(found: SpaceRange, lowest: bool) -> str:
    """Breakdown of the lowest or the highest, the largest part first."""
    total_ms = found.lowest_ms if lowest else found.highest_ms
    all_parts: tuple[PartRange, ...] = (*found.base, *found.stages)
    parts = [(part.lowest_ms if lowest else part.highest_ms, part) for part in all_parts]
    parts.sort(key=lambda entry: -entry[0])
    shares = [f"{part.name} {found.table.cost.number(ms, 3)} ({100 * ms / total_ms:.0f} %)" for ms, part in parts if ms]
    return (
        f"breakdown of the {'lowest' if lowest else 'highest'}, {found.table.quantity(total_ms)}: {', '.join(shares)}"
    )


def lower_lines(found: SpaceRange) -> Iterator[str]:
    """What keeps the lowest from being lower, and what would lower it."""
    quantity = found.table.quantity
    for stage in found.stages:
        if stage.shallower_ms is not None:
            fewer = min(stage.depths) - 1
            yield f"min_blocks: {fewer} for {stage.name} would make the lowest {quantity(stage.shallower_ms)}"
    mandatory = sum(min(stage.depths) for stage in found.stages)
    forced = mandatory > 0 and all(stage.shallower_ms is None for stage in found.stages)
    why = " (the first of a stage, which changes size or channels)" if forced else ""
    fitted = found.space.has_expansion
    widths = f", with widths from {found.space.width_bounds[0]} of the usual on" if fitted else ""
    yield (
        f"it has {mandatory} mandatory block{'' if mandatory == 1 else 's'}{why}{widths}; dropping operations cannot "
        "lower it, "
        f"{'smaller width_bounds, ' if fitted else ''}fewer channels or a smaller image_size can, with a table "
        "measured for them"
    )


def higher_lines(found: SpaceRange) -> Iterator[str]:
    """What keeps the highest from being higher, and what would raise it."""
    deeper = [stage for stage in found.stages if stage.deeper_ms is not None and stage.deeper_ms > found.highest_ms]
    if deeper:
        raised = ", ".join(f"{stage.name} {found.table.cost.number(stage.deeper_ms or 0.0)}" for stage in deeper)
        yield f"a block more in a stage would make the highest ({found.table.unit}): {raised}"
    fitted = found.space.has_expansion
    widths = f", with widths up to {found.space.width_bounds[1]} of the usual" if fitted else ""
    yield (
        f"it has all {len(found.space.blocks)} blocks{widths}; more blocks, "
        f"{'larger width_bounds' if fitted else 'operations that expand'}, more channels or a larger image_size raise "
        "it, the last three with a table measured for them"
    )


def expensive_text(found: SpaceRange, trait: TraitCost) -> str:
    """That a trait of operations is expensive on the device, and what the space reaches without it."""
    lowest_ms, highest_ms = trait.without_ms
    against = "" if trait.against == "none" else f" as much as {trait.against}"
    return (
        f"{trait.name} costs {trait.ratio:.1f} x{against} on this device ({trait.worst_ratio:.1f} x in "
        f"{trait.worst_stage}) for {trait.macs_ratio:.2f} x the MACs; a space without it "
        f"(operations: [{', '.join(trait.remaining_operations)}]) reaches "
        f"{found.table.cost.number(lowest_ms)} to {found.table.quantity(highest_ms)}"
    )
