"""Kendall's tau between a score and an accuracy, how sure it is, and whether one score beats another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, norm

FloatArray = NDArray[np.float64]

_CONFIDENCE = 0.95
_FIELLER = 0.437
_RESAMPLES = 2000


class Tau(NamedTuple):
    """Kendall's tau-b with its confidence interval."""

    value: float
    low: float
    high: float


def tau_with_interval(first: Sequence[float], second: Sequence[float]) -> Tau | None:
    """Kendall's tau-b of two lists of numbers [n], n above 4; None where all of one are equal.

    The interval is that of Fieller, Hartley and Pearson (Biometrika 1957): the inverse hyperbolic tangent of tau is
    about normal with variance 0.437 / (n - 4). Perfect agreement is taken to be half a pair short of it, or nothing
    would be uncertain about it.
    """
    value = float(kendalltau(first, second).statistic)
    if math.isnan(value):
        return None
    count = len(first)
    largest = 1 - 1 / (count * (count - 1) / 2)
    middle = math.atanh(min(max(value, -largest), largest))
    reach = float(norm.ppf(0.5 + _CONFIDENCE / 2)) * math.sqrt(_FIELLER / (count - 4))
    low, high = math.tanh(middle - reach), math.tanh(middle + reach)
    return Tau(value, -1.0 if value <= -largest else low, 1.0 if value >= largest else high)


def share_beating(first: Sequence[float], second: Sequence[float], accuracy: Sequence[float]) -> float:
    """In what share of bootstrap resamples of the networks the first foretells the accuracy better than the second.

    Better is a larger tau-b; where both are equal, half counts. Resamples in which one is not defined do not count;
    where all are such, the result is 0.
    """
    counts = np.random.default_rng(0).multinomial(len(accuracy), [1 / len(accuracy)] * len(accuracy), _RESAMPLES)
    weights = counts.astype(np.float64)
    left, right = (weighted_taus(values, accuracy, weights) for values in (first, second))
    defined = ~(np.isnan(left) | np.isnan(right))
    if not defined.any():
        return 0.0
    difference = np.round((left - right)[defined], 12)
    return float(np.mean(np.where(difference == 0, 0.5, difference > 0)))


def weighted_taus(first: Sequence[float] | FloatArray, second: Sequence[float], weights: FloatArray) -> FloatArray:
    """Tau-b [resamples] where pair (i, j) counts weights[i] * weights[j] times; NaN where it is not defined."""
    left, right = pair_signs(first), pair_signs(second)
    scale = np.sqrt(over_pairs(weights, left**2) * over_pairs(weights, right**2))
    together = over_pairs(weights, left * right)
    return np.divide(together, scale, out=np.full_like(together, np.nan), where=scale > 0)


def over_pairs(weights: FloatArray, pairs: FloatArray) -> FloatArray:
    """The sum [resamples] over pairs [n, n], each as often as both members are drawn (weights [resamples, n])."""
    return np.asarray(np.einsum("ri,ij,rj->r", weights, pairs, weights, optimize=True), dtype=np.float64)


def pair_signs(values: Sequence[float] | FloatArray) -> FloatArray:
    """Which of each pair of values [n] is larger: 1, -1, or 0 where they are equal, [n, n]."""
    array = np.asarray(values, dtype=np.float64)
    return np.sign(array[:, None] - array[None, :])
