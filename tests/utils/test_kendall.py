"""Kendall's tau, its interval and the comparison of two scores, against slower and simpler computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from tfnas.utils.statistics import share_beating, tau_with_interval


def counted_tau(first, second):
    """Tau-b from the pairs one by one."""
    agree = differ = ties_first = ties_second = 0
    for (a, b), (c, d) in itertools.combinations(zip(first, second, strict=True), 2):
        agree += (a - c) * (b - d) > 0
        differ += (a - c) * (b - d) < 0
        ties_first += a == c
        ties_second += b == d
    pairs = len(first) * (len(first) - 1) // 2
    return (agree - differ) / math.sqrt((pairs - ties_first) * (pairs - ties_second))


@pytest.mark.parametrize("seed", range(5))
def test_tau_counts_pairs(seed):
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 8, 16), random.integers(0, 8, 16)
    found = tau_with_interval(first, second)
    assert found.value == pytest.approx(counted_tau(first.tolist(), second.tolist()), abs=1e-12)
    assert -1 <= found.low < found.value < found.high <= 1


def test_the_interval_is_the_published_one():
    # tau 0.5 of 16: atanh(0.5) = ln(3) / 2, standard error sqrt(0.437 / 12)
    order = list(range(16))
    shuffled = [3, 0, 4, 1, 2, 7, 5, 9, 6, 8, 10, 15, 11, 13, 12, 14]
    found = tau_with_interval(order, shuffled)
    error = 1.959963984540054 * math.sqrt(0.437 / 12)
    middle = 0.5 * math.log((1 + found.value) / (1 - found.value))
    for bound, sign in ((found.low, -1), (found.high, 1)):
        grown = math.exp(2 * (middle + sign * error))
        assert bound == pytest.approx((grown - 1) / (grown + 1), rel=1e-9)


def test_perfect_agreement_is_not_certain():
    found = tau_with_interval(range(16), range(16))
    assert found.value == 1 and found.high == 1 and 0.9 < found.low < 1
    turned = tau_with_interval(range(16), range(0, -16, -1))
    assert turned.value == -1 and turned.low == -1 and turned.high == pytest.approx(-found.low)
    assert tau_with_interval([0] * 16, range(16)) is None


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # normal pairs with correlation r have tau = 2 / pi * asin(r)
    random, correlation, held, trials = np.random.default_rng(1), 0.6, 0, 800
    truth = 2 / math.pi * math.asin(correlation)
    for _ in range(trials):
        first = random.normal(size=16)
        second = correlation * first + math.sqrt(1 - correlation**2) * random.normal(size=16)
        found = tau_with_interval(first, second)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / trials <= 0.99


def test_a_score_never_beats_itself():
    random = np.random.default_rng(0)
    score, accuracy = random.normal(size=16), random.normal(size=16)
    assert share_beating(score, score, accuracy) == 0.5
    assert share_beating(2 * score + 1, score, accuracy) == 0.5


def test_the_better_score_beats_the_worse():
    random = np.random.default_rng(0)
    accuracy = random.normal(size=16)
    good, bad = accuracy + 0.3 * random.normal(size=16), random.normal(size=16)
    assert share_beating(good, bad, accuracy) > 0.95
    assert share_beating(bad, good, accuracy) < 0.05
    assert share_beating([1.0] * 16, bad, accuracy) == 0  # a constant has no tau


def test_resamples_are_those_of_networks():
    """The same share from drawing networks one by one and calling scipy, within the error of both."""
    random = np.random.default_rng(3)
    accuracy = random.normal(size=12)
    first, second = accuracy + random.normal(size=12), accuracy + 1.5 * random.normal(size=12)
    wins = []
    for _ in range(600):
        drawn = random.integers(0, 12, 12)
        taus = [kendalltau(score[drawn], accuracy[drawn]).statistic for score in (first, second)]
        wins.append(0.5 if abs(taus[0] - taus[1]) < 1e-12 else float(taus[0] > taus[1]))
    assert share_beating(first, second, accuracy) == pytest.approx(np.mean(wins), abs=0.08)
