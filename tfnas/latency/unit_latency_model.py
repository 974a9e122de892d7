"""Latency of any unit of a structure from some that were measured: a physical baseline times a smooth correction.

The baseline is a sum of work, traffic and operations (`unit_features.py`) with weights of 0 or more, fitted to all
units together. The correction interpolates the logarithm of measured over baseline within a block type, over the
logarithms of channels, size, kernel and stride, smoothed against noise: kriging with a linear variogram, which does not
overshoot. How strongly to smooth is what predicts each unit best from the others. Errors are relative, and units far
from what the others predict, which a busy machine makes, count less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tfnas.latency.structure_table_json import UnitTiming
from tfnas.latency.unit_features import unit_features
from tfnas.spaces.zen.unit_shapes import UnitShape

FloatArray = NDArray[np.float64]

_SMOOTHINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_LEAST_NOISE = 0.01
_BASELINE_NOISE = 0.1
_OUTLYING = 1.5
_MAD_TO_SIGMA = 1.4826
_ITERATIONS = 3
_PROJECTED = 0.5
_ALIGNED = 0.4
_ALIGNMENT = 16
_FEWEST = 6


class UnitLatencyModel:
    """Fitted to measured units; `noise` is the relative standard error of each. Deterministic.

    `left_out_errors` are those of predicting each unit from the others, as predicted over measured less 1; the
    baseline, which has few numbers, is not fitted again for that.
    """

    def __init__(self, shapes: Sequence[UnitShape], ms: FloatArray, noise: FloatArray) -> None:
        features = unit_features(shapes)
        coordinates = np.array([_coordinates(shape) for shape in shapes])
        types = np.array([shape.block_type for shape in shapes])
        own = noise = np.maximum(noise, _LEAST_NOISE)
        for _ in range(_ITERATIONS):
            self._weights = _baseline(features, ms, noise)
            ratios = np.log(ms / np.maximum(features @ self._weights, np.finfo(float).tiny))
            self._corrections: dict[str, _Correction] = {}
            left_out = np.zeros(len(shapes))
            for name in dict.fromkeys(types.tolist()):
                chosen = types == name
                correction, errors = _best_correction(coordinates[chosen], ratios[chosen], noise[chosen])
                self._corrections[name], left_out[chosen] = correction, errors
            usual = max(_MAD_TO_SIGMA * float(np.median(np.abs(left_out))), _LEAST_NOISE)
            noise = own * np.maximum(1.0, np.abs(left_out) / (_OUTLYING * usual)) ** 2
        self.left_out_errors = np.expm1(left_out)

    @classmethod
    def of_timings(cls, timings: Mapping[UnitShape, UnitTiming]) -> UnitLatencyModel:
        """Fitted to what was measured of units."""
        ms, noise = (np.array([getattr(timing, name) for timing in timings.values()]) for name in ("ms", "noise"))
        return cls(list(timings), ms, noise)

    def ms(self, shape: UnitShape) -> float:
        """Milliseconds of a unit of a block type that was measured."""
        baseline_ms = float(unit_features([shape])[0] @ self._weights)
        return baseline_ms * math.exp(self._corrections[shape.block_type].at(_coordinates(shape)))


def _coordinates(shape: UnitShape) -> list[float]:
    """Where a unit lies among those of its type; whole vectors of channels are a little apart from others."""
    numbers = (*shape.channels, shape.size, shape.kernel, shape.stride)
    aligned = (_ALIGNED * (channels % _ALIGNMENT == 0) for channels in shape.channels)
    return [*(math.log2(number) for number in numbers), _PROJECTED * shape.projected, *aligned]


def _baseline(features: FloatArray, ms: FloatArray, noise: FloatArray) -> FloatArray:
    """Weights of features for which relative errors are least; those of noisy units count less."""
    importance = 1 / np.hypot(noise, _BASELINE_NOISE)
    rows = features * (importance / ms)[:, None]
    sizes = np.linalg.norm(rows, axis=0)
    sizes[sizes == 0] = 1.0
    found, _ = nnls(rows / sizes, importance, maxiter=100 * rows.shape[1])
    return np.asarray(found / sizes, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Correction:
    """A value less the distances to measured units, each times a coefficient."""

    value: float
    coordinates: FloatArray
    coefficients: FloatArray

    def at(self, coordinates: Sequence[float]) -> float:
        if not len(self.coefficients):
            return self.value
        differences = self.coordinates - np.asarray(coordinates)
        return self.value - float(np.sqrt(np.einsum("ij,ij->i", differences, differences)) @ self.coefficients)


def _best_correction(coordinates: FloatArray, ratios: FloatArray, noise: FloatArray) -> tuple[_Correction, FloatArray]:
    """The correction that predicts units best when they are left out, and its errors then (predicted less measured)."""
    count, importance = len(ratios), noise**-2
    mean = float(np.average(ratios, weights=importance))
    best, best_errors = _Correction(mean, coordinates[:0], ratios[:0]), mean - ratios
    if count < _FEWEST:
        return best, best_errors
    differences = coordinates[:, None] - coordinates[None]
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = -np.sqrt(np.einsum("ijk,ijk->ij", differences, differences))
    system[count, count] = 0.0
    nugget = np.append(noise**2 / float(np.median(noise**2)), 0.0)
    for smoothing in _SMOOTHINGS:
        inverse = np.linalg.inv(system + np.diag(smoothing * nugget))
        found = inverse @ np.append(ratios, 0.0)
        errors = -found[:count] / np.diag(inverse)[:count]  # as if each were left out: Dubrule 1983
        if np.abs(errors).mean() < np.abs(best_errors).mean():
            best, best_errors = _Correction(float(found[count]), coordinates, found[:count]), errors
    return best, best_errors
