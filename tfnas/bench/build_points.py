"""Which blocks a space can hold, at which widths, and which of these to measure first.

Whether a device prefers some widths, multiples of 8, 16 or 32 channels: found from a few densely measured curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from tfnas.bench.benchmark_cases import BenchmarkCase, block_case
from tfnas.core.blocks import Block
from tfnas.core.space import SearchSpace
from tfnas.latency.table_contents import Curve, WidthClasses, interpolated_ms
from tfnas.spaces.mbconv.table_keys import latency_key

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

    def case(self, width: int) -> BenchmarkCase:
        """The block at a width."""
        low, high = self.widths[0], self.widths[-1]
        block = Block(**{**vars(self.block), "mid_channels": width, "mid_range": (low, high)})
        return block_case(block, self.input_size)

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


FloatArray = NDArray[np.float64]

_MULTIPLES = (2, 4, 8, 16, 32, 64)
_FEWEST_POINTS = 12
_GAIN = 0.85
_LEAST_GAIN = 0.005
_SIGNIFICANCE = 0.01
_LARGEST_ERROR = 0.2


def width_classes_of(probes: Sequence[Curve]) -> WidthClasses:
    """The classes of widths, and their stairs, under which the curves are told best from their other points.

    Every inner point is foretold from all the others (leave one out), with every candidate: first classes alone, then
    with stairs. The best candidate is believed only where it lessens the mean error by a seventh and by half a percent
    of the latency at least, and beyond chance (Wilcoxon's signed-rank test, for as many candidates as there are).
    """
    believed, errors = WidthClasses(), _foretelling_errors(probes, WidthClasses())
    if len(errors) < _FEWEST_POINTS:
        return believed
    for candidates in ([WidthClasses(multiple) for multiple in _MULTIPLES], list(_with_stairs())):
        found = [_foretelling_errors(probes, candidate) for candidate in candidates]
        best = min(range(len(found)), key=lambda index: float(found[index].mean()))
        if _is_better(found[best], errors, _SIGNIFICANCE / len(candidates)):
            believed, errors = candidates[best], found[best]
    return believed


def advantage_of(curves: Iterable[Curve], classes: WidthClasses) -> float:
    """What multiples take, as a share of what the widths around them would let expect: the median over all curves."""
    shares = []
    for curve in curves:
        aligned = [width for width in curve.widths if width % classes.multiple == 0]
        others = curve
        for width in aligned:
            others = others.without(width)
        if others.widths:
            known = dict(zip(curve.widths, curve.ms, strict=True))
            expected = np.interp(aligned, others.widths, others.ms)
            shares += [known[width] / ms for width, ms in zip(aligned, expected, strict=True)]
    return float(np.median(shares)) if shares else 1.0


def _with_stairs() -> Iterator[WidthClasses]:
    for multiple in _MULTIPLES:
        stairs = [stair for stair in (multiple, 2 * multiple, 4 * multiple) if stair <= _MULTIPLES[-1]]
        for multiples_stair in (1, *stairs[1:]):
            for others_stair in (1, *stairs):
                if (multiples_stair, others_stair) != (1, 1):
                    yield WidthClasses(multiple, multiples_stair, others_stair)


def _is_better(errors: FloatArray, than: FloatArray, significance: float) -> bool:
    gained = than - errors
    if errors.mean() > _GAIN * than.mean() or gained.mean() < _LEAST_GAIN:
        return False
    return float(wilcoxon(gained, alternative="greater").pvalue) < significance


def _foretelling_errors(probes: Sequence[Curve], classes: WidthClasses) -> FloatArray:
    """Relative error of every inner point of every curve, foretold without it."""
    errors = []
    for curve in probes:
        widths, ms = np.array(curve.widths), np.array(curve.ms)
        for place in range(1, len(widths) - 1):
            others = np.delete(widths, place), np.delete(ms, place)
            (foretold,) = interpolated_ms(*others, widths[place : place + 1], classes)
            errors.append(min(abs(float(foretold) / ms[place] - 1), _LARGEST_ERROR))
    return np.array(errors)
