"""Latency of any unit of a structure from some that were measured: a physical baseline times a smooth correction.

The baseline is a sum of work, traffic and operations (`unit_features.py`) with weights of 0 or more, fitted to all
units together. The correction interpolates the logarithm of measured over baseline within a block type, over the
logarithms of channels, size, kernel and stride, smoothed against noise: kriging with a linear variogram, which neither
overshoots nor leaves the range of what was measured by much. Errors are relative. How strongly to smooth, and whether
channels count in multiples of 1, 8, 16 or 32, is what predicts each unit best from the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tfnas.latency.unit_features import unit_features
from tfnas.spaces.zen.unit_shapes import UnitShape

FloatArray = NDArray[np.float64]

_MULTIPLES = (1, 16, 32)
_SMOOTHINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LEAST_NOISE = 0.01
_PROJECTION = 0.5
_FEWEST = 6
_CLEARLY = 0.98
"""How much smaller an error must be to choose a larger multiple of channels."""


class UnitLatencyModel:
    """Fitted to measured units; `noise` is the relative standard error of each. Deterministic.

    `left_out_errors` are the errors of predicting each unit from the others, as predicted over measured less 1; the
    baseline, which has few numbers, is not fitted again for that.
    """

    def __init__(self, shapes: Sequence[UnitShape], ms: FloatArray, noise: FloatArray) -> None:
        fits = [_Fit.of(shapes, ms, np.maximum(noise, _LEAST_NOISE), multiple) for multiple in _MULTIPLES]
        best = fits[0]
        for fit in fits[1:]:
            if fit.error < _CLEARLY * best.error:
                best = fit
        self._fit = best
        self.left_out_errors = np.expm1(best.left_out)

    @property
    def channel_multiple(self) -> int:
        """What channels are rounded up to, in the baseline."""
        return self._fit.multiple

    def ms(self, shape: UnitShape) -> float:
        """Milliseconds of a unit of a block type that was measured."""
        baseline_ms = float(unit_features([shape], self._fit.multiple)[0] @ self._fit.weights)
        return baseline_ms * math.exp(self._fit.corrections[shape.block_type].at(_coordinates(shape)))


@dataclass(frozen=True, eq=False)
class _Fit:
    """With channels in multiples of `multiple`; `left_out` are the logarithms of predicted over measured."""

    multiple: int
    weights: FloatArray
    corrections: dict[str, _Correction]
    left_out: FloatArray

    @classmethod
    def of(cls, shapes: Sequence[UnitShape], ms: FloatArray, noise: FloatArray, multiple: int) -> _Fit:
        features = unit_features(shapes, multiple)
        weights = _baseline(features, ms, noise)
        ratios = np.log(ms / np.maximum(features @ weights, np.finfo(float).tiny))
        coordinates = np.array([_coordinates(shape) for shape in shapes])
        types = np.array([shape.block_type for shape in shapes])
        corrections, left_out = {}, np.zeros(len(shapes))
        for name in dict.fromkeys(types.tolist()):
            chosen = types == name
            correction, errors = _best_correction(coordinates[chosen], ratios[chosen], noise[chosen])
            corrections[name], left_out[chosen] = correction, errors
        return cls(multiple, weights, corrections, left_out)

    @property
    def error(self) -> float:
        """The mean size of the errors of units left out."""
        return float(np.abs(self.left_out).mean())


def _coordinates(shape: UnitShape) -> list[float]:
    """Where a unit lies among those of its type."""
    numbers = (*shape.channels, shape.size, shape.kernel, shape.stride)
    return [*(math.log2(number) for number in numbers), _PROJECTION * shape.projected]


def _baseline(features: FloatArray, ms: FloatArray, noise: FloatArray) -> FloatArray:
    """Weights of features for which relative errors are least; those of noisy units count less."""
    importance = 1 / np.hypot(noise, 0.1)
    rows = features * (importance / ms)[:, None]
    sizes = np.linalg.norm(rows, axis=0)
    sizes[sizes == 0] = 1.0
    found, _ = nnls(rows / sizes, importance, maxiter=100 * rows.shape[1])
    return np.asarray(found / sizes, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Correction:
    """A value with a sum of minus the distances to measured units, each with a coefficient."""

    value: float
    coordinates: FloatArray
    coefficients: FloatArray

    def at(self, coordinates: Sequence[float]) -> float:
        if not len(self.coefficients):
            return self.value
        differences = self.coordinates - np.asarray(coordinates)
        distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
        return self.value - float(distances @ self.coefficients)


def _best_correction(coordinates: FloatArray, ratios: FloatArray, noise: FloatArray) -> tuple[_Correction, FloatArray]:
    """The correction that predicts units best when they are left out, and its errors then (predicted less measured)."""
    count = len(ratios)
    mean = float(np.average(ratios, weights=noise**-2))
    flat = _Correction(mean, coordinates[:0], ratios[:0])
    best, best_errors = flat, mean - ratios
    if count < _FEWEST:
        return best, best_errors
    differences = coordinates[:, None] - coordinates[None]
    distances = np.sqrt(np.einsum("ijk,ijk->ij", differences, differences))
    relative = noise**2 / float(np.mean(noise**2))
    for smoothing in _SMOOTHINGS:
        system = np.ones((count + 1, count + 1))
        system[:count, :count] = -distances + np.diag(smoothing * relative)
        system[count, count] = 0.0
        inverse = np.linalg.pinv(system, hermitian=True)
        found = inverse @ np.append(ratios, 0.0)
        errors = -found[:count] / np.diag(inverse)[:count]  # as if each were left out: Dubrule 1983
        if np.abs(errors).mean() < np.abs(best_errors).mean():
            best, best_errors = _Correction(float(found[count]), coordinates, found[:count]), errors
    return best, best_errors
