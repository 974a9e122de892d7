"""Fitting a correction: recovered truths, noise left alone, outliers, and what must stay above zero."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfnas.latency.correction_fit import Coefficients, MeasuredNetworks, SmallestParts, fit_correction, sum_errors

ROOMY = SmallestParts(base_ms=1.0, block_ms=0.5)


def samples(count, truth, noise=0.0, seed=0, blocks=(6, 19)):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(*blocks, count).astype(float)
    sums = 1.0 + numbers * rng.uniform(0.5, 1.5, count)
    return MeasuredNetworks(sums, numbers, truth(sums, numbers) * (1 + noise * rng.standard_normal(count)))


def all_three(sums, numbers):
    return 0.95 * sums + 0.3 + 0.02 * numbers


def test_without_noise_the_truth_is_found():
    fit = fit_correction(samples(12, all_three), ROOMY)
    assert vars(fit.terms) == pytest.approx({"scale": 0.95, "offset_ms": 0.3, "block_ms": 0.02}, rel=1e-4)
    assert fit.left_out_percent == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_with_noise_others_are_foretold(seed):
    fit = fit_correction(samples(10, all_three, 0.005, seed), ROOMY)
    fresh = samples(200, all_three, seed=seed + 100)
    errors = np.abs(fit.terms.predicted_ms(fresh) / fresh.measured_ms - 1)
    assert np.median(errors) < 0.008 and errors.max() < 0.03
    plain = np.abs(fresh.sum_ms / fresh.measured_ms - 1)
    assert np.median(errors) < np.median(plain)


@pytest.mark.parametrize("seed", range(5))
def test_a_scale_is_all_that_is_needed_for_a_scale(seed):
    found = samples(10, lambda sums, _: 1.2 * sums, 0.01, seed)
    fit = fit_correction(found, ROOMY)
    assert (fit.terms.offset_ms, fit.terms.block_ms) == (0, 0)
    assert fit.terms.scale == pytest.approx(1.2, rel=0.012)
    assert fit.left_out_plain_percent == pytest.approx(100 * np.mean(np.abs(found.sum_ms / found.measured_ms - 1)))
    assert fit.left_out_percent < 2 < fit.left_out_plain_percent


def test_noise_alone_is_seldom_fitted():
    fits = [fit_correction(samples(10, lambda sums, _: sums, 0.02, seed), ROOMY) for seed in range(20)]
    assert sum(fit is not None for fit in fits) <= 2


@pytest.mark.parametrize("place", range(10))
def test_one_disturbed_network_moves_little(place):
    found = samples(10, lambda sums, _: 0.9 * sums, 0.003, seed=4)
    disturbed = found.measured_ms.copy()
    disturbed[place] *= 1.8
    terms = fit_correction(MeasuredNetworks(found.sum_ms, found.blocks, disturbed), ROOMY).terms
    clean = samples(100, lambda sums, _: 0.9 * sums, seed=5)
    assert np.abs(terms.predicted_ms(clean) / clean.measured_ms - 1).max() < 0.02
    columns = np.stack([found.sum_ms, np.ones(10), found.blocks], 1) / disturbed[:, None]
    squares = columns @ np.linalg.lstsq(columns, np.ones(10), rcond=None)[0]  # what least squares would make of it
    others = np.arange(10) != place
    assert np.abs(squares - 1)[others].max() > 0.02


def test_no_part_is_ever_free():
    found = samples(12, lambda sums, numbers: 1.1 * sums - 0.25 * numbers)
    free = fit_correction(found, ROOMY).terms
    assert free.block_ms == pytest.approx(-0.25, rel=1e-3)
    narrow = SmallestParts(base_ms=1.0, block_ms=0.2)
    assert not free.keep_positive(narrow)
    terms = fit_correction(found, narrow).terms
    assert terms.keep_positive(narrow) and terms != free
    assert terms.scale * narrow.block_ms + terms.block_ms > 0


@pytest.mark.parametrize(
    ("terms", "allowed"),
    [
        (Coefficients(), True),
        (Coefficients(0.2), True),
        (Coefficients(0.05), True),
        (Coefficients(0.0, 1.0), False),
        (Coefficients(2.0, 0.0, -0.89), True),
        (Coefficients(2.0, 0.0, -0.91), False),
        (Coefficients(-1.0, 50.0, 50.0), False),
        (Coefficients(1.0, -0.89, 0.0), True),
        (Coefficients(1.0, -0.91, 0.0), False),
        (Coefficients(1.0, 0.0, -0.44), True),
        (Coefficients(1.0, 0.0, -0.46), False),
    ],
)
def test_a_tenth_of_every_part_is_kept(terms, allowed):
    assert terms.keep_positive(ROOMY) is allowed


def test_few_networks_carry_few_numbers():
    assert fit_correction(samples(2, lambda sums, _: 2 * sums), ROOMY) is None
    three = fit_correction(samples(3, all_three), ROOMY)
    assert three is None or (three.terms.offset_ms, three.terms.block_ms) == (0, 0)
    seven = fit_correction(samples(7, all_three), ROOMY)
    assert 0 in (seven.terms.offset_ms, seven.terms.block_ms)


def test_equal_numbers_of_blocks_tell_no_term_per_block_apart():
    found = samples(12, lambda sums, numbers: 0.9 * sums + 0.1 * numbers, blocks=(8, 9))
    terms = fit_correction(found, ROOMY).terms
    assert terms.scale == pytest.approx(0.9, rel=1e-3)
    assert terms.offset_ms + 8 * terms.block_ms == pytest.approx(0.8, rel=1e-2)
    assert 0 in (terms.offset_ms, terms.block_ms)


def test_errors_are_those_of_the_definition():
    predicted, measured = np.array([11.0, 19.0, 33.0, 41.0]), np.array([10.0, 20.0, 30.0, 50.0])
    errors = sum_errors(predicted, measured)
    signed = [10.0, -5.0, 10.0, -18.0]
    assert errors.networks == 4
    assert errors.bias_percent == pytest.approx((10.0 - 5.0) / 2)
    assert errors.median_percent == pytest.approx(10.0)
    assert errors.worst_percent == pytest.approx(max(map(abs, signed)))
    assert errors.kendall_tau == 1.0


def test_kendalls_tau_counts_pairs():
    rng = np.random.default_rng(0)
    predicted, measured = rng.uniform(1, 2, (2, 9))
    pairs = list(itertools.combinations(range(9), 2))
    signs = [np.sign((predicted[i] - predicted[j]) * (measured[i] - measured[j])) for i, j in pairs]
    assert sum_errors(predicted, measured).kendall_tau == pytest.approx(sum(signs) / len(pairs))


@pytest.mark.parametrize(("predicted", "measured"), [([2.0], [1.0]), ([1.0, 1.0], [1.0, 2.0])])
def test_where_there_is_no_order_tau_is_zero(predicted, measured):
    assert sum_errors(np.array(predicted), np.array(measured)).kendall_tau == 0.0
