"""Cost tables that are counted, not measured: multiply-accumulates or parameters of one network, in the same form.

    table = counted_table(tfnas.space("imagenet"), "macs")
    tfnas.meet_target(choice, table, 300e6)

Every part of a network costs a fixed amount and one that grows in proportion with its width (the classifier: with its
classes). So two points make a curve, and what stands between them is exact.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from tfnas.core import __version__
from tfnas.core.cost import COSTS, COUNTED
from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import (
    ANY_DEVICE,
    LARGEST_WIDTH,
    BasePart,
    ClassifierPart,
    Curve,
    Measurement,
    TableContents,
)
from tfnas.spaces.families import part_counts
from tfnas.spaces.mbconv.mbconv_family import block_counts
from tfnas.spaces.mbconv.table_keys import STEM_PARTS, classifier_key, stem_keys, widths_by_key
from tfnas.utils.files import check_writable


def counted_table(space: SearchSpace, cost: str, num_classes: int = 1000) -> LatencyTable:
    """The table of a space by counting `macs` or `params`: `architecture_ms` is what `tfnas.count` finds, exactly.

    `num_classes` is of the networks that stand for the space where nothing else is said; it prices 1 to 65,536 classes.
    Raises InputError for another cost.
    """
    if cost not in COUNTED:
        raise InputError(f"the cost {cost!r} cannot be counted: choose one of {', '.join(COUNTED)}")
    architecture = space.shallowest(num_classes)
    parts, keys = part_counts(architecture), stem_keys(architecture)
    names = dict(zip(STEM_PARTS, ("first_stem", "second_stem", "feature_mix_layer"), strict=True))
    base = {part: BasePart(keys[part], float(getattr(parts[name], cost)), 0.0) for part, name in names.items()}
    contents = TableContents(
        base=base,
        curves=_curves(space, cost),
        measurement=_provenance(space, cost, num_classes),
        classifier=ClassifierPart(classifier_key(architecture), _classifier_curve(space, cost)),
        cost=cost,
    )
    return LatencyTable(contents, source=f"the table of {COSTS[cost].unit} of space {space.name}")


def write_counted_table(
    space: SearchSpace, cost: str, path: str | os.PathLike[str], num_classes: int = 1000
) -> LatencyTable:
    """Write such a table as a file, whole or not at all, and return it.

    Raises InputError for another cost and RunFailed when the file cannot be written.
    """
    table = counted_table(space, cost, num_classes)
    check_writable(Path(path))
    table.save(path)
    return table


def _curves(space: SearchSpace, cost: str) -> dict[str, Curve]:
    """Every block's key at its smallest and largest width."""
    return {
        key: _block_curve(entry.block, entry.input_size, entry.widths, cost)
        for key, entry in widths_by_key(space).items()
    }


def _block_curve(block: Block, input_size: int, widths: Sequence[int], cost: str) -> Curve:
    ends = sorted({widths[0], widths[-1]})
    costs = [getattr(block_counts(block.at_fixed_width(width), input_size), cost) for width in ends]
    return _curve(ends, costs)


def _classifier_curve(space: SearchSpace, cost: str) -> Curve:
    ends = (1, LARGEST_WIDTH)
    costs = [getattr(part_counts(space.shallowest(count))["classifier"], cost) for count in ends]
    return _curve(ends, costs)


def _curve(widths: Iterable[int], costs: Iterable[int]) -> Curve:
    widths, values = tuple(widths), tuple(float(value) for value in costs)
    return Curve(widths, values, (0.0,) * len(widths))


def _provenance(space: SearchSpace, cost: str, num_classes: int) -> Measurement:
    return Measurement(
        space=space.name,
        space_fingerprint=space.fingerprint,
        image_size=space.image_size,
        num_classes=num_classes,
        width_multiple=space.width_multiple,
        device=ANY_DEVICE,
        device_kind=ANY_DEVICE,
        worker=False,
        runtime=ANY_DEVICE,
        batch_size=1,
        threads=1,
        dtype=ANY_DEVICE,
        versions={"tfnas": __version__},
        date=datetime.date.today().isoformat(),
        procedure=f"Counted: {COSTS[cost].target_words} of one network, in closed form; nothing was measured.",
    )
