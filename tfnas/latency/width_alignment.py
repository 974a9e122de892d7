"""Width alignment: whether a device prefers widths that are multiples of 8, 16 or 32, by densely measured curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from tfnas.latency.table_contents import Curve, WidthClasses, interpolated_ms

FloatArray = NDArray[np.float64]

_MULTIPLES = (2, 4, 8, 16, 32, 64)
_FEWEST_POINTS = 12
_GAIN = 0.85
_LEAST_GAIN = 0.005
_SIGNIFICANCE = 0.01
_LARGEST_ERROR = 0.2


def fit_width_classes(probes: Sequence[Curve]) -> WidthClasses:
    """The width classes and step sizes with the lowest leave-one-out interpolation error of the curves.

    Every inner point is interpolated from all the others, with every candidate: first classes alone, then with steps.
    The best candidate is taken only if it reduces the mean error by a seventh and by half a percent of the latency at
    least, and significantly (Wilcoxon's signed-rank test, corrected for the number of candidates).
    """
    chosen, errors = WidthClasses(), _leave_one_out_errors(probes, WidthClasses())
    if len(errors) < _FEWEST_POINTS:
        return chosen
    for candidates in ([WidthClasses(multiple) for multiple in _MULTIPLES], list(_with_steps())):
        found = [_leave_one_out_errors(probes, candidate) for candidate in candidates]
        best = min(range(len(found)), key=lambda index: float(found[index].mean()))
        if _is_better(found[best], errors, _SIGNIFICANCE / len(candidates)):
            chosen, errors = candidates[best], found[best]
    return chosen


def aligned_width_ratio(curves: Iterable[Curve], classes: WidthClasses) -> float:
    """Latency of the multiples over what the widths around them let expect: the median over all curves."""
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


def _with_steps() -> Iterator[WidthClasses]:
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


def _leave_one_out_errors(probes: Sequence[Curve], classes: WidthClasses) -> FloatArray:
    """Relative error of every inner point of every curve, interpolated without it."""
    errors = []
    for curve in probes:
        widths, ms = np.array(curve.widths), np.array(curve.ms)
        for place in range(1, len(widths) - 1):
            others = np.delete(widths, place), np.delete(ms, place)
            (interpolated,) = interpolated_ms(*others, widths[place : place + 1], classes)
            errors.append(min(abs(float(interpolated) / ms[place] - 1), _LARGEST_ERROR))
    return np.array(errors)
