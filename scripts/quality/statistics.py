"""What the benchmark claims, as numbers with intervals.

Networks and training seeds are both samples: every interval of a mean resamples both. Trainings are paired: the same
seed means the same order of images and the same random numbers for initial weights, for every network.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import kendalltau, ttest_ind

from tfnas.utils.statistics import over_pairs, pair_signs, weighted_taus

FloatArray = NDArray[np.float64]

RESAMPLES = 10_000
_CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval is on one side of zero."""
        return self.low > 0 or self.high < 0


class Spread(NamedTuple):
    """Standard deviations of a one-way random effects model, and the interval of their ratio (normal theory).

    `between` networks has the noise of seeds taken away; `within` is that of seeds, of one network. Where that is none
    at all, there is no ratio.
    """

    between: float
    within: float
    ratio: Interval | None


def spread(values: FloatArray) -> Spread:
    """How much networks differ, and trainings of one network. `values` is [networks, seeds], two or more of both."""
    networks, seeds = values.shape
    within = float(values.var(axis=1, ddof=1).mean())
    of_means = float(values.mean(axis=1).var(ddof=1))
    if within == 0:
        return Spread(of_means**0.5, 0.0, None)
    statistic = seeds * of_means / within
    tail, freedom = (1 - _CONFIDENCE) / 2, (networks - 1, networks * (seeds - 1))
    bounds = (statistic / float(f_distribution.ppf(share, *freedom)) for share in (1 - tail, tail))
    low, high = (_root(bound, seeds) for bound in bounds)
    ratio = _root(statistic, seeds)
    return Spread(ratio * within**0.5, within**0.5, Interval(ratio, low, high))


def _root(statistic: float, seeds: int) -> float:
    """The ratio of standard deviations that an F statistic stands for."""
    return max(0.0, (statistic - 1) / seeds) ** 0.5


def mean(values: FloatArray, seed: int = 0) -> Interval:
    """Mean of [networks, seeds] with its bootstrap interval; networks and seeds are resampled, each with repetition."""
    random = np.random.default_rng(seed)
    shares = _shares(random, values.shape[1])
    return _interval(float(values.mean()), _means(values, random, shares))


def difference(first: FloatArray, second: FloatArray, seed: int = 0) -> Interval:
    """Mean of the first less mean of the second, each [networks, seeds] with the same seeds in the same order.

    A bootstrap in which the same seeds are drawn for both, so that what a seed does to all networks cancels. With few
    networks (three searches) its intervals come out too narrow: see `welch` as well.
    """
    random = np.random.default_rng(seed)
    shares = _shares(random, first.shape[1])
    drawn = _means(first, random, shares) - _means(second, random, shares)
    return _interval(float(first.mean() - second.mean()), drawn)


def welch(first: FloatArray, second: FloatArray) -> Interval | None:
    """The same difference by Welch's t on the networks' means; None with fewer than two networks on one side."""
    if min(len(first), len(second)) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means that are nearly the same
        test = ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False)
    bounds = test.confidence_interval(_CONFIDENCE)
    return Interval(float(first.mean() - second.mean()), float(bounds.low), float(bounds.high))


def mean_tau(predicted: FloatArray, observed: Sequence[float], seed: int = 0) -> Interval:
    """Kendall's tau-b between each row of `predicted` [rows, networks] and what was observed, on average.

    The interval resamples networks. A row that says the same of all networks foretells nothing: tau 0.
    """
    weights = _weights(np.random.default_rng(seed), len(observed))
    taus = [float(np.nan_to_num(kendalltau(row, observed).statistic)) for row in predicted]
    return _interval(float(np.mean(taus)), np.mean([_tau(row, observed, weights) for row in predicted], axis=0))


def share_ordered(predicted: FloatArray, observed: Sequence[float], seed: int = 0) -> Interval:
    """In what share of pairs of networks the row of `predicted` that is larger goes with what is larger in `observed`.

    0.5 is chance; a pair that is predicted to be equal counts half, one that came out equal is left out. The mean over
    rows, with a bootstrap over networks.
    """
    weights = np.vstack([np.ones(len(observed)), _weights(np.random.default_rng(seed), len(observed))])
    shares = np.mean([_share(row, observed, weights) for row in predicted], axis=0)
    return _interval(float(shares[0]), shares[1:])


# ---- inside ----------------------------------------------------------------------------------------------------------


def _weights(random: np.random.Generator, count: int) -> FloatArray:
    """How often each of `count` things is drawn, [resamples, count]."""
    return random.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def _shares(random: np.random.Generator, count: int) -> FloatArray:
    return _weights(random, count) / count


def _means(values: FloatArray, random: np.random.Generator, seeds: FloatArray) -> FloatArray:
    networks = _shares(random, len(values))
    return np.asarray(np.einsum("rn,ns,rs->r", networks, values, seeds, optimize=True), dtype=np.float64)


def _interval(value: float, drawn: FloatArray) -> Interval:
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _tau(predicted: FloatArray, observed: Sequence[float], weights: FloatArray) -> FloatArray:
    return np.nan_to_num(weighted_taus(predicted, observed, weights))


def _share(predicted: FloatArray, observed: Sequence[float], weights: FloatArray) -> FloatArray:
    left, right = pair_signs(predicted), pair_signs(observed)
    counted = over_pairs(weights, right**2)
    right_way = over_pairs(weights, (1 + left * right) / 2 * right**2)
    return np.divide(right_way, counted, out=np.full_like(counted, np.nan), where=counted > 0)
