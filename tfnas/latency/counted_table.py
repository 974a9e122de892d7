"""Cost tables that are counted, not measured: multiply-accumulates or parameters of one network, in the same form.

    table = counted_table(tfnas.space("imagenet"), "macs")
    tfnas.meet_target(choice, table, 300e6)

Every part of a network costs a fixed amount and one that grows in proportion with its width (the classifier: with its
classes). So two points make a curve, and what stands between them is exact.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from pathlib import Path

from tfnas.core import __version__
from tfnas.core.cost import COSTS, COUNTED
from tfnas.core.errors import InputError
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
    measurement = _provenance(space, cost, num_classes)
    network = space.shallowest(num_classes)
    parts, names = part_counts(network), ("first_stem", "second_stem", "feature_mix_layer")
    extremes = [dataclasses.replace(network, num_classes=count) for count in (1, LARGEST_WIDTH)]
    classifiers = {extreme.num_classes: part_counts(extreme)["classifier"] for extreme in extremes}
    keys, head_key, widths = stem_keys(network), classifier_key(network), widths_by_key(space)
    curves = {}
    for key, entry in widths.items():
        ends = {width: block_counts(entry.at(width), entry.input_size) for width in (entry.widths[0], entry.widths[-1])}
        curves[key] = Curve.exact({width: getattr(counts, cost) for width, counts in ends.items()})
    head = Curve.exact({count: getattr(counts, cost) for count, counts in classifiers.items()})
    contents = TableContents(
        base={
            part: BasePart(keys[part], float(getattr(parts[name], cost)), 0.0)
            for part, name in zip(STEM_PARTS, names, strict=True)
        },
        curves=curves,
        measurement=measurement,
        classifier=ClassifierPart(head_key, head),
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
