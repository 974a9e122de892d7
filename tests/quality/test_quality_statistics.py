"""What the benchmark claims: against closed forms, scipy, and data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from quality.statistics import RESAMPLES, difference, mean, mean_tau, share_ordered, spread, welch
from scipy.stats import bootstrap, f_oneway, kendalltau, ttest_ind


def drawn(seed, networks, seeds, between, within, level=0.0):
    """Values of networks that differ by `between`, with noise of seeds `within`."""
    random = np.random.default_rng(seed)
    return level + between * random.normal(size=(networks, 1)) + within * random.normal(size=(networks, seeds))


# --- spread -----------------------------------------------------------------------------------------------------------


def test_the_spread_of_made_networks_is_found_again() -> None:
    found = spread(drawn(0, 2000, 5, between=0.3, within=0.5))
    assert found.between == pytest.approx(0.3, rel=0.05)
    assert found.within == pytest.approx(0.5, rel=0.05)
    assert found.ratio.value == pytest.approx(0.6, rel=0.05)
    assert found.ratio.low < 0.6 < found.ratio.high


def test_the_spread_agrees_with_the_analysis_of_variance() -> None:
    values = drawn(1, 9, 4, between=1.0, within=0.7)
    statistic = f_oneway(*values).statistic
    found = spread(values)
    assert found.ratio.value == pytest.approx(np.sqrt((statistic - 1) / 4))
    assert found.between == pytest.approx(found.ratio.value * found.within)
    assert found.within**2 == pytest.approx(np.mean([np.var(row, ddof=1) for row in values]))


def test_the_interval_of_the_spread_covers_as_often_as_it_says() -> None:
    ratios = [spread(drawn(seed, 12, 4, between=0.8, within=1.0)).ratio for seed in range(400)]
    covered = np.mean([ratio.low <= 0.8 <= ratio.high for ratio in ratios])
    assert 0.92 <= covered <= 0.98


def test_networks_that_do_not_differ_have_no_spread_below_zero() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    found = spread(values)
    assert (found.between, found.ratio.value, found.ratio.low) == (0.0, 0.0, 0.0)
    assert found.within == pytest.approx(np.sqrt(0.5))


def test_without_noise_of_seeds_there_is_no_ratio() -> None:
    assert spread(np.array([[1.0, 1.0], [3.0, 3.0]])) == (np.sqrt(2), 0.0, None)
    assert spread(np.full((3, 2), 10.0)) == (0.0, 0.0, None)


# --- means and differences --------------------------------------------------------------------------------------------


def test_with_seeds_that_change_nothing_the_interval_is_that_of_scipy() -> None:
    means = np.random.default_rng(3).normal(size=14)
    values = np.repeat(means[:, None], 3, axis=1)
    expected = bootstrap(
        (means,), np.mean, method="percentile", n_resamples=RESAMPLES, random_state=np.random.default_rng(0)
    ).confidence_interval
    found = mean(values)
    assert found.value == pytest.approx(means.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)


def test_the_difference_of_two_groups_is_that_of_scipy() -> None:
    random = np.random.default_rng(4)
    first, second = random.normal(size=10) + 0.5, random.normal(size=16)
    expected = bootstrap(
        (first, second),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        method="percentile",
        n_resamples=RESAMPLES,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    found = difference(np.repeat(first[:, None], 2, axis=1), np.repeat(second[:, None], 2, axis=1))
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.04)


def test_what_a_seed_does_to_all_networks_cancels_in_a_difference() -> None:
    random = np.random.default_rng(5)
    of_seeds = 10 * random.normal(size=(1, 5))
    first, second = 1 + of_seeds + np.zeros((4, 1)), of_seeds + np.zeros((6, 1))
    found = difference(first, second)
    assert found == pytest.approx((1.0, 1.0, 1.0))
    assert found.excludes_zero
    alone = mean(first)
    assert alone.high - alone.low > 1


def test_an_interval_is_wider_with_noise_of_seeds() -> None:
    quiet, loud = (mean(drawn(6, 8, 4, between=0.1, within=within)) for within in (0.01, 1.0))
    assert loud.high - loud.low > 3 * (quiet.high - quiet.low)


def test_a_difference_that_is_not_there_is_seldom_claimed() -> None:
    claims = [
        difference(drawn(seed, 12, 4, 0.5, 0.5), drawn(1000 + seed, 12, 4, 0.5, 0.5)).excludes_zero
        for seed in range(30)
    ]
    assert np.mean(claims) <= 0.2


def test_welch_is_that_of_scipy_on_the_means_of_networks() -> None:
    first, second = drawn(7, 3, 4, 1.0, 0.5, level=1.0), drawn(8, 12, 4, 1.0, 0.5)
    interval = ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False).confidence_interval(0.95)
    assert welch(first, second) == pytest.approx((first.mean() - second.mean(), interval.low, interval.high))
    assert welch(first[:1], second) is None


# --- foretelling ------------------------------------------------------------------------------------------------------


def test_tau_is_that_of_scipy_with_ties_and_its_interval_holds_it() -> None:
    random = np.random.default_rng(9)
    observed = random.integers(0, 6, size=15).astype(float)
    rows = np.array([observed + random.normal(size=15), random.integers(0, 4, size=15).astype(float)])
    found = mean_tau(rows, observed)
    assert found.value == pytest.approx(np.mean([kendalltau(row, observed).statistic for row in rows]))
    assert found.low < found.value < found.high


def test_the_interval_of_tau_knows_order_from_chance() -> None:
    observed = np.arange(20.0)
    random = np.random.default_rng(10)
    assert mean_tau(observed[None] + random.normal(size=20), observed).low > 0.5
    nothing = mean_tau(random.normal(size=(1, 20)), observed)
    assert nothing.low < 0 < nothing.high
    assert mean_tau(-observed[None], observed)[:2] == pytest.approx((-1.0, -1.0))


def test_what_says_the_same_of_all_foretells_nothing() -> None:
    observed = np.arange(8.0)
    assert mean_tau(np.ones((2, 8)), observed) == (0.0, 0.0, 0.0)
    assert share_ordered(np.ones((2, 8)), observed) == (0.5, 0.5, 0.5)


def test_the_share_of_pairs_counts_them() -> None:
    observed = [1.0, 2.0, 3.0, 3.0]  # five pairs differ
    predicted = np.array([[1.0, 3.0, 2.0, 1.0]])  # right: 01, 02; equal: 03; wrong: 12, 13
    assert share_ordered(predicted, observed).value == pytest.approx(2.5 / 5)
    both = share_ordered(np.vstack([predicted, [observed]]), observed)
    assert both.value == pytest.approx((0.5 + 1.0) / 2)
    assert both.low <= both.value <= both.high


def test_without_ties_the_share_is_half_of_one_more_than_tau() -> None:
    random = np.random.default_rng(11)
    observed, row = random.normal(size=12), random.normal(size=12)
    tau, share = mean_tau(row[None], observed.tolist()), share_ordered(row[None], observed.tolist())
    assert share == pytest.approx(tuple((1 + value) / 2 for value in tau))
