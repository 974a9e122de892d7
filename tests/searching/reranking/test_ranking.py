"""Ranks and their combination, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import rankdata

from tfnas.searching.reranking.rerank_result import combined_order, log_rank_sums, ranks


def test_the_best_is_first_in_either_direction():
    values = [0.5, 9.0, -3.0, 2.0]
    assert ranks(values, higher_is_better=True).tolist() == [3, 1, 4, 2]
    assert ranks(values, higher_is_better=False).tolist() == [2, 4, 1, 3]


def test_equals_share_the_mean_of_their_places():
    assert ranks([7, 7, 1, 9, 7], higher_is_better=True).tolist() == [3, 3, 5, 1, 3]
    assert ranks([4, 4], higher_is_better=False).tolist() == [1.5, 1.5]


def test_ranks_are_those_of_scipy():
    random = np.random.default_rng(0)
    for values in (random.normal(size=40), random.integers(0, 6, size=40), random.integers(0, 2, size=7)):
        assert ranks(values, higher_is_better=False).tolist() == rankdata(values).tolist()
        assert ranks(values, higher_is_better=True).tolist() == rankdata(-values).tolist()


def test_logarithms_of_ranks_add_up():
    first, second = ranks([30, 20, 10], True), ranks([1, 3, 2], True)  # places 1 2 3 and 3 1 2
    expected = [math.log(1) + math.log(3), math.log(2) + math.log(1), math.log(3) + math.log(2)]
    assert log_rank_sums([first, second]).tolist() == pytest.approx(expected, rel=1e-14)
    assert combined_order([first, second]) == [1, 0, 2]


def test_a_first_place_outweighs_two_middling_ones():
    # places (1, 6) against (3, 3): sums 7 and 6, products 6 and 9
    first = ranks([60, 40, 50, 30, 20, 10], True)
    second = ranks([10, 40, 50, 60, 30, 20], True)
    assert (first[0], second[0], first[1], second[1]) == (1, 6, 3, 3)
    order = combined_order([first, second])
    assert order.index(0) < order.index(1)


def test_equal_sums_keep_the_order_of_the_candidates():
    first, second = ranks([3, 2, 1], True), ranks([1, 2, 3], True)  # products 3, 4, 3
    assert combined_order([first, second]) == [0, 2, 1]
    assert combined_order([second, first]) == [0, 2, 1]
