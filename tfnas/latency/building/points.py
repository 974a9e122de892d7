"""Which blocks a space can hold, at which widths, and which of these to measure first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfnas.architecture import Block
from tfnas.latency.contents import WidthClasses
from tfnas.latency.keys import latency_key
from tfnas.latency.measuring.workloads import Workload, block_workload
from tfnas.space import SearchSpace

_PROBED_CURVES = 3
_PROBED_AROUND = 64
_RARE = 0.1
_PROBED_OFFSETS = (
    *range(-32, 33, 4),
    *(-31, -23, -15, -9, -1, 1, 7, 17, 25, 31),
    *(-30, -18, -6, -2, 2, 10, 22),
)


@dataclass(frozen=True, order=True)
class Point:
    """A block, by its key, at a width."""

    key: str
    width: int


@dataclass(frozen=True)
class Widths:
    """The widths (ascending) that a space gives the blocks of one key; operations that differ in width share them."""

    block: Block
    input_size: int
    widths: tuple[int, ...]

    def workload(self, width: int) -> Workload:
        """The block at a width."""
        low, high = self.widths[0], self.widths[-1]
        block = Block(**{**vars(self.block), "mid_channels": width, "mid_range": (low, high)})
        return block_workload(block, self.input_size)

    def first_points(self, classes: WidthClasses) -> list[int]:
        """What is measured of every curve: the ends of each class of widths, and a width in its middle.

        Multiples that are rare get none in the middle: the other widths say how the curve bends. Where no classes were
        seen, the width in the middle and one beside the upper end are odd: the ends are multiples of many numbers,
        which a device may like a little better than any width between.
        """
        everything = np.array(self.widths)
        aligned = everything % classes.multiple == 0
        if classes.multiple == 1 or not aligned.any() or aligned.all():
            odd = everything[everything % 2 == 1]
            inner = odd if len(odd) > 1 else everything
            return sorted({self.widths[0], self._middle(inner), int(inner[-1]), self.widths[-1]})
        others = everything[~aligned]
        chosen = {everything[aligned][0], everything[aligned][-1], others[0], self._middle(others), others[-1]}
        if aligned.mean() > _RARE:
            chosen.add(self._middle(everything[aligned]))
        return sorted(int(width) for width in {*chosen, self.widths[0], self.widths[-1]})

    @staticmethod
    def _middle(widths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
        """The one nearest to the middle between the outermost."""
        return int(widths[np.abs(widths - (widths[0] + widths[-1]) / 2).argmin()])

    def probes(self) -> list[int]:
        """Widths around a multiple of 64 (or of 32, 16, ... in a small range): both sides of every likely stair."""
        low, high = self.widths[0], self.widths[-1]
        around, middle = _PROBED_AROUND, (low + high) / 2
        while around > 1 and not low < round(middle / around) * around < high:
            around //= 2
        centre = round(middle / around) * around
        allowed = set(self.widths)
        return sorted({centre + offset for offset in _PROBED_OFFSETS} & allowed)


def widths_by_key(space: SearchSpace) -> dict[str, Widths]:
    """Everything that the space can hold, in the order of its blocks."""
    found: dict[str, tuple[Block, int, set[int]]] = {}
    for place in space.blocks:
        for operation in space.operations:
            allowed = space.widths(place, operation)
            block = space.block(place, operation, allowed[0])
            entry = found.setdefault(latency_key(block, place.input_size), (block, place.input_size, set()))
            entry[2].update(allowed)
    return {key: Widths(block, size, tuple(sorted(widths))) for key, (block, size, widths) in found.items()}


def probed_keys(space_widths: dict[str, Widths]) -> list[str]:
    """A few keys to see the device's stairs by: with a wide range, early, in the middle and late in the network."""
    keys = [key for key, widths in space_widths.items() if len(widths.widths) > 2 * len(_PROBED_OFFSETS)]
    keys = keys or [key for key, widths in space_widths.items() if len(widths.widths) > 1] or list(space_widths)
    places = np.linspace(0, len(keys) - 1, min(_PROBED_CURVES, len(keys))).round().astype(int)
    return [keys[place] for place in places]


def drawn_points(space_widths: dict[str, Widths], count: int, seed: int, without: Iterable[Point]) -> list[Point]:
    """So many points at random, evenly over the keys, apart from those `without`: to be measured and not used."""
    random = np.random.default_rng(seed)
    taken = set(without)
    free = {key: [w for w in widths.widths if Point(key, w) not in taken] for key, widths in space_widths.items()}
    keys = [key for key, widths in free.items() if widths]
    drawn: list[Point] = []
    while keys and len(drawn) < count:
        for key in random.permutation(keys)[: count - len(drawn)]:
            drawn.append(Point(str(key), int(random.choice(free[str(key)]))))
            free[str(key)].remove(drawn[-1].width)
        keys = [key for key in keys if free[key]]
    return drawn
