"""What a person sees of the range of a space, and the same as JSON. Fits 80 columns, lines of text 100."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.range_text import dear_text, higher_lines, is_inside, lower_lines
from tfnas.latency.space_range import OperationCost, PartRange, SpaceRange, StageRange, TraitCost
from tfnas.utils.text import print_whole

_FIRST_COLUMN = 14
_LONGEST_LINE = 100
_HANGING = 11
_WHAT_IT_IS = (
    "costs and MACs: at the widths a search starts from, against the cheapest operation of the block (SE, larger "
    "kernels and expansions: against the operation that differs in nothing else), medians over the blocks"
)


def print_range(console: Console, found: SpaceRange, target_ms: float | None = None) -> None:
    """The range, where it goes, what operations cost, what the device is bad at, and what bounds the range."""
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
        inside = is_inside(target_ms, found.lowest_ms, found.highest_ms)
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
    names = ["where it goes", f"lowest {unit}", "share", f"highest {unit}", "share", "blocks", "highest + 1"]
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
        yield "cheapest", f"{first.name}; dearest {last.name} ({last.ratio:.1f} x)"
    if found.table.cost.is_time:
        for index, trait in enumerate(found.dear_traits):
            yield "bad at" if index == 0 else "", dear_text(found, trait)
        if not found.dear_traits and found.traits:
            yield "bad at", "nothing in particular: no kind of operation costs much more than its MACs suggest"
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
        "traits": [{**dataclasses.asdict(trait), "is_dear": trait in found.dear_traits} for trait in found.traits],
    }
    if target_ms is not None:
        document["target_ms"] = target_ms
        document["target_is_inside"] = is_inside(target_ms, found.lowest_ms, found.highest_ms)
    return document
