"""Tables made up for tests."""

from __future__ import annotations

from tfnas.latency.contents import BasePart, Curve, TableContents
from tfnas.latency.keys import latency_key
from tfnas.latency.table import LatencyTable


def table_of(base_ms, curves):
    """A table of {key: (widths, ms)}."""
    made = {key: Curve(tuple(widths), tuple(ms), (0.0,) * len(ms)) for key, (widths, ms) in curves.items()}
    return LatencyTable(TableContents({"first_stem": BasePart("stem", base_ms, 0.0)}, made, None))


def random_table(space, random, curve):
    """A table that covers a space; `curve(random, n)` gives the milliseconds at widths 1..n of one key."""
    curves = {}
    for place in space.blocks:
        top = max(space.width_range(place, operation)[1] for operation in space.operations)
        for operation in space.operations:
            block = space.block(place, operation, space.initial_width(place, operation))
            key = latency_key(block, place.input_size)
            if key not in curves:
                curves[key] = (range(1, top + 1), [float(ms) for ms in curve(random, top)])
    return table_of(float(random.uniform(0.5, 2)), curves)
