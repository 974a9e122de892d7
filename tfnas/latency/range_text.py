"""What `space_range` finds, in sentences: for the log of a search, the range command, and infeasible targets."""

from __future__ import annotations

from collections.abc import Iterator

from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.reachable import Band
from tfnas.latency.space_range import PartRange, SpaceRange, TraitCost, space_range
from tfnas.spaces.mbconv.space_file import space_arguments
from tfnas.utils.text import command_line


def bounds_text(space: SearchSpace, table: LatencyTable, num_classes: int | None = None) -> str:
    """In one line: the range of the space in the table, and what bounds it."""
    lowest_ms, highest_ms = table.range_ms(space, num_classes)
    base_ms, number, quantity = table.base_ms(num_classes), table.cost.number, table.quantity
    blocks = sum(min(depths) for depths in space.depth_choices)
    return (
        f"{number(lowest_ms)} to {quantity(highest_ms)}; stem and head alone take {quantity(base_ms)}, the {blocks} "
        f"blocks that a network must keep {quantity(lowest_ms - base_ms)} at least, and all {len(space.blocks)} blocks "
        f"{quantity(highest_ms - base_ms)} at most"
    )


def is_inside(target_ms: float, lowest_ms: float, highest_ms: float) -> bool:
    """Whether a target is in a range; one just above the highest is, while the highest is in its band."""
    return lowest_ms <= target_ms and Band.of(target_ms).low_ms <= highest_ms


def outside_text(
    space: SearchSpace,
    table: LatencyTable,
    target_ms: float,
    num_classes: int | None = None,
    named: str | None = None,
) -> str | None:
    """Why a target lies beyond what the space reaches, in a few lines; None where it does not.

    `named` is what the user calls the space, where that is known.
    """
    lowest_ms, highest_ms = table.range_ms(space, num_classes)
    if is_inside(target_ms, lowest_ms, highest_ms):
        return None
    below, found = target_ms < lowest_ms, space_range(space, table, num_classes)
    return "\n  ".join(
        [
            f"the target of {table.quantity(target_ms, 6)} is {'below' if below else 'above'} what the space "
            f"{space.name!r} reaches with its table ({bounds_text(space, table, num_classes)}); choose a target within "
            "that range, or change the space",
            shares_text(found, below),
            *(lower_lines(found) if below else higher_lines(found)),
            *([] if table.path is None else [f"all of it: {range_command(space, table, num_classes, named)}"]),
        ]
    )


def range_command(
    space: SearchSpace, table: LatencyTable, num_classes: int | None = None, named: str | None = None
) -> str:
    """The command that shows the range of a space with a table that was read from a file."""
    words = space_arguments(space, named)
    if num_classes not in (None, table.num_classes):
        words += ["--num_classes", str(num_classes)]
    return command_line("latency range", *words, "--lookup_path", str(table.path))


def shares_text(found: SpaceRange, lowest: bool) -> str:
    """Where the lowest or the highest goes, the largest part first."""
    total_ms = found.lowest_ms if lowest else found.highest_ms
    all_parts: tuple[PartRange, ...] = (*found.base, *found.stages)
    parts = [(part.lowest_ms if lowest else part.highest_ms, part) for part in all_parts]
    parts.sort(key=lambda entry: -entry[0])
    shares = [f"{part.name} {found.table.cost.number(ms, 3)} ({100 * ms / total_ms:.0f} %)" for ms, part in parts if ms]
    return f"the {'lowest' if lowest else 'highest'}, {found.table.quantity(total_ms)}, goes to: {', '.join(shares)}"


def lower_lines(found: SpaceRange) -> Iterator[str]:
    """What keeps the lowest from being lower, and what would lower it."""
    quantity = found.table.quantity
    for stage in found.stages:
        if stage.shallower_ms is not None:
            fewer = min(stage.depths) - 1
            yield f"min_blocks: {fewer} for {stage.name} would make the lowest {quantity(stage.shallower_ms)}"
    kept = sum(min(stage.depths) for stage in found.stages)
    forced = kept > 0 and all(stage.shallower_ms is None for stage in found.stages)
    why = " (the first of a stage, which changes size or channels)" if forced else ""
    fitted = found.space.has_expansion
    widths = f", with widths from {found.space.width_bounds[0]} of the usual on" if fitted else ""
    yield (
        f"it keeps {kept} block{'' if kept == 1 else 's'}{why}{widths}; dropping operations cannot lower it, "
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


def dear_text(found: SpaceRange, trait: TraitCost) -> str:
    """That the device is bad at a trait of operations, and what the space reaches without it."""
    lowest_ms, highest_ms = trait.without_ms
    against = "" if trait.against == "none" else f" as much as {trait.against}"
    return (
        f"{trait.name} costs {trait.ratio:.1f} x{against} here ({trait.worst_ratio:.1f} x in {trait.worst_stage}) for "
        f"{trait.macs_ratio:.2f} x the MACs; a space without it (operations: [{', '.join(trait.kept)}]) reaches "
        f"{found.table.cost.number(lowest_ms)} to {found.table.quantity(highest_ms)}"
    )
