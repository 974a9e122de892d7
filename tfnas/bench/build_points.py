"""Which points (blocks at a width) are measured first: a few curves densely, the ends of all, held-out points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfnas.bench.benchmark_cases import BenchmarkCase, block_case
from tfnas.latency.table_contents import WidthClasses
from tfnas.spaces.mbconv.table_keys import KeyWidths

_PROBED_CURVES = 3
_PROBED_AROUND = 64
_RARE = 0.1
_PROBED_OFFSETS = (
    *range(-32, 33, 4),
    *(-31, -23, -15, -9, -1, 1, 7, 17, 25, 31),
    *(-30, -18, -6, -2, 2, 10, 22),
)


@dataclass(frozen=True, order=True)
class TablePoint:
    """A block, by its key, at a width."""

    key: str
    width: int


def case_at(entry: KeyWidths, width: int) -> BenchmarkCase:
    """The block of a key at a width."""
    return block_case(entry.at(width), entry.input_size)


def first_widths(widths: Sequence[int], classes: WidthClasses) -> list[int]:
    """What is measured of every curve: the ends of each class of widths, and a width in its middle.

    Multiples that are rare get none in the middle: the other widths say how the curve bends. If no classes were
    detected, the width in the middle and one next to the upper end are odd: the ends are multiples of many numbers,
    which a device may prefer a little to any width between.
    """
    everything = np.array(widths)
    aligned = everything % classes.multiple == 0
    if classes.multiple == 1 or not aligned.any() or aligned.all():
        odd = everything[everything % 2 == 1]
        inner = odd if len(odd) > 1 else everything
        return sorted({widths[0], _middle(inner), int(inner[-1]), widths[-1]})
    others = everything[~aligned]
    chosen = {everything[aligned][0], everything[aligned][-1], others[0], _middle(others), others[-1]}
    if aligned.mean() > _RARE:
        chosen.add(_middle(everything[aligned]))
    return sorted(int(width) for width in {*chosen, widths[0], widths[-1]})


def _middle(widths: NDArray[np.int64]) -> int:
    """The one nearest to the middle between the outermost."""
    return int(widths[np.abs(widths - (widths[0] + widths[-1]) / 2).argmin()])


def probe_widths(widths: Sequence[int]) -> list[int]:
    """Widths around a multiple of 64 (or of 32, 16, ... in a small range): both sides of every likely step."""
    low, high = widths[0], widths[-1]
    around, middle = _PROBED_AROUND, (low + high) / 2
    while around > 1 and not low < round(middle / around) * around < high:
        around //= 2
    centre = round(middle / around) * around
    return sorted({centre + offset for offset in _PROBED_OFFSETS} & set(widths))


def probed_keys(by_key: Mapping[str, KeyWidths]) -> list[str]:
    """A few keys to detect the device's steps by: with a wide range, early, in the middle and late in the network."""
    keys = [key for key, entry in by_key.items() if len(entry.widths) > 2 * len(_PROBED_OFFSETS)]
    keys = keys or [key for key, entry in by_key.items() if len(entry.widths) > 1] or list(by_key)
    places = np.linspace(0, len(keys) - 1, min(_PROBED_CURVES, len(keys))).round().astype(int)
    return [keys[place] for place in places]


def drawn_points(
    by_key: Mapping[str, KeyWidths], count: int, seed: int, without: Iterable[TablePoint]
) -> list[TablePoint]:
    """So many points at random, evenly over the keys, apart from those `without`: to be measured and not used."""
    random = np.random.default_rng(seed)
    taken = set(without)
    free = {key: [w for w in entry.widths if TablePoint(key, w) not in taken] for key, entry in by_key.items()}
    keys = [key for key, widths in free.items() if widths]
    drawn: list[TablePoint] = []
    while keys and len(drawn) < count:
        for key in random.permutation(keys)[: count - len(drawn)]:
            drawn.append(TablePoint(str(key), int(random.choice(free[str(key)]))))
            free[str(key)].remove(drawn[-1].width)
        keys = [key for key in keys if free[key]]
    return drawn
