"""Whether a device prefers some widths, multiples of 8, 16 or 32 channels: found from a few densely measured curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from tfnas.latency.contents import Curve, WidthClasses

_MULTIPLES = (2, 4, 8, 16, 32, 64)
_GAIN = 0.85
_SIGNIFICANCE = 0.01
_LARGEST_ERROR = 0.2


def width_classes_of(probes: Sequence[Curve]) -> WidthClasses:
    """The classes of widths under which the curves are told best from their other points.

    Every inner point is foretold from all the others (leave one out), with every candidate. Classes are believed only
    where they lessen the mean error by a seventh at least, and beyond chance (Wilcoxon's signed-rank test).
    """
    plain = _foretelling_errors(probes, WidthClasses())
    if len(plain) < 2 * len(_MULTIPLES):
        return WidthClasses()
    errors = {candidate: _foretelling_errors(probes, candidate) for candidate in _candidates()}
    best = min(errors, key=lambda candidate: float(errors[candidate].mean()))
    gained = plain - errors[best]
    if errors[best].mean() > _GAIN * plain.mean() or not gained.any():
        return WidthClasses()
    return best if wilcoxon(gained, alternative="greater").pvalue < _SIGNIFICANCE else WidthClasses()


def advantage_of(probes: Sequence[Curve], classes: WidthClasses) -> float:
    """How much faster multiples are than the curve through the other widths, as a share (negative: slower)."""
    shares = []
    for curve in probes:
        widths, ms = np.asarray(curve.widths), np.asarray(curve.ms)
        aligned = widths % classes.multiple == 0
        inner = aligned & (widths > widths[~aligned].min(initial=0)) & (widths < widths[~aligned].max(initial=0))
        between = np.interp(widths[inner], widths[~aligned], ms[~aligned]) if inner.any() else np.zeros(0)
        shares += list(1 - ms[inner] / between)
    return float(np.median(shares)) if shares else 0.0


def _candidates() -> Iterator[WidthClasses]:
    for multiple in _MULTIPLES:
        yield WidthClasses(multiple)
        yield WidthClasses(multiple, steps=True)


def _foretelling_errors(probes: Sequence[Curve], classes: WidthClasses) -> NDArray[np.float64]:
    """Relative error of every inner point of every curve, foretold without it."""
    errors = []
    for curve in probes:
        for width, ms in list(zip(curve.widths, curve.ms, strict=True))[1:-1]:
            foretold = curve.without(width).dense_ms(classes)[width - curve.widths[0]]
            errors.append(min(abs(float(foretold) / ms - 1), _LARGEST_ERROR))
    return np.array(errors)
