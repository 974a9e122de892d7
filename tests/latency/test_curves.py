"""Interpolation between measured widths: against a second implementation, also where a device has classes of widths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfnas.latency import width_alignment
from tfnas.latency.table_contents import Curve, WidthClasses
from tfnas.latency.width_alignment import fit_width_classes

positive = st.floats(1e-3, 1e3)
points = st.dictionaries(st.integers(1, 60), positive, min_size=1, max_size=7).map(lambda found: sorted(found.items()))


def dense(measured):
    widths, ms = zip(*measured, strict=True)
    return Curve(widths, ms, (0.0,) * len(ms)).dense_ms()


@given(points)
def test_interpolation_stays_between_its_neighbours_and_meets_them(measured):
    values = dense(measured)
    assert len(values) == measured[-1][0] - measured[0][0] + 1
    assert values.min() > 0
    for (low, first), (high, last) in itertools.pairwise(measured):
        between = values[low - measured[0][0] : high - measured[0][0] + 1]
        assert between[0] == first and between[-1] == last
        margin = 1e-9 * max(first, last)
        assert min(first, last) - margin <= between.min() and between.max() <= max(first, last) + margin


def by_hand(points, at):
    """On the straight line between the two points around a place; level beyond the ends."""
    if at <= min(points):
        return points[min(points)]
    if at >= max(points):
        return points[max(points)]
    low, high = max(width for width in points if width <= at), min(width for width in points if width > at)
    return (points[low] * (high - at) + points[high] * (at - low)) / (high - low)


def test_interpolation_runs_straight():
    measured = [(8, 1.0), (12, 1.5), (20, 1.6), (30, 3.5), (34, 2.0)]
    np.testing.assert_allclose(dense(measured), [by_hand(dict(measured), at) for at in range(8, 35)], rtol=1e-12)
    assert dense(measured)[2] == 1.25


def test_one_measured_width_and_two_are_enough():
    assert dense([(5, 0.25)]).tolist() == [0.25]
    np.testing.assert_allclose(dense([(4, 1.0), (8, 3.0)]), [1.0, 1.5, 2.0, 2.5, 3.0], rtol=1e-12)


# ---- classes of widths --------------------------------------------------------------------------------------------


def classes_by_hand(points, multiple, multiples_stair, others_stair, at):
    """The others run between themselves, on stairs if so; the multiples have their ratio to that."""
    if at in points:
        return points[at]
    others = {width: ms for width, ms in points.items() if width % multiple}
    multiples = {width: ms for width, ms in points.items() if not width % multiple}
    if not others or not multiples:
        return by_hand(points, at)

    def place(width, stair=others_stair):
        return width + -width % stair

    def levels(points, stair):
        rows = {}
        for width, ms in points.items():
            rows.setdefault(place(width, stair), []).append(ms)
        return {width: sum(row) / len(row) for width, row in rows.items()}

    stairs = levels(others, others_stair)
    if at % multiple:
        return by_hand(stairs, place(at))

    def beside(width):
        return by_hand(stairs, place(place(width, multiples_stair)))

    ratios = levels({width: ms / beside(width) for width, ms in multiples.items()}, multiples_stair)
    return beside(at) * by_hand(ratios, place(at, multiples_stair))


@given(points, st.sampled_from([1, 2, 3, 8]), st.sampled_from([1, 2]), st.sampled_from([0, 1, 2]))
def test_classes_of_widths_equal_a_second_implementation(measured, multiple, multiples_factor, others_factor):
    classes = WidthClasses(multiple, multiple * multiples_factor, max(1, multiple * others_factor))
    known = dict(measured)
    numbers = multiple, classes.multiples_stair, classes.others_stair
    expected = [classes_by_hand(known, *numbers, at) for at in range(measured[0][0], measured[-1][0] + 1)]
    widths, ms = zip(*measured, strict=True)
    values = Curve(widths, ms, (0.0,) * len(ms)).dense_ms(classes)
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert values.min() > 0


def test_a_staircase_is_found_again_from_few_widths():
    """Others pay for the next multiple of 8 and 30 % more: both classes come out exactly, and are not mixed."""

    def true_ms(width):
        return (1 + (width + -width % 8) / 8) * (1.3 if width % 8 else 1.0)

    widths = (1, 8, 9, 15, 24, 33, 39, 40, 57, 63, 64)
    curve = Curve(widths, tuple(true_ms(width) for width in widths), (0.0,) * len(widths))
    values = curve.dense_ms(WidthClasses(8, 1, 8))
    within = [width for width in range(1, 64) if width % 8]
    np.testing.assert_allclose([values[w - 1] for w in within], [true_ms(w) for w in within], rtol=1e-12)
    multiples = range(8, 65, 8)
    np.testing.assert_allclose([values[w - 1] for w in multiples], [true_ms(w) for w in multiples], rtol=1e-12)
    plain = curve.dense_ms()
    assert max(abs(plain[w - 1] / true_ms(w) - 1) for w in multiples) > 0.1


def test_figures_that_differ_by_many_powers_of_ten_stay_between_their_points():
    curve = Curve((1, 10, 20, 30), (1e-9, 1e15, 1e-9, 1e-300), (0.0,) * 4)
    values = curve.dense_ms()
    assert values.min() > 0 and values.max() == 1e15
    assert not values.flags.writeable


def test_a_point_can_be_taken_away():
    curve = Curve((2, 4, 6), (1.0, 2.0, 4.0), (0.1, 0.2, 0.3))
    assert curve.without(4) == Curve((2, 6), (1.0, 4.0), (0.1, 0.3))
    with pytest.raises(ValueError, match="not in tuple"):
        curve.without(5)


@pytest.mark.parametrize(
    ("share", "noise", "multiple"), [(0.99, 0.002, 1), (0.8, 0.002, 8), (0.8, 0.02, 8), (1.0, 0.05, 1)]
)
def test_a_preference_is_believed_where_it_matters(share, noise, multiple):
    """Classes cost points: 1 % for a few widths is not worth them, 20 % is; and noise is taken for none."""
    random = np.random.default_rng(5)
    widths = sorted({*range(24, 89, 2), 25, 33, 41, 63, 65, 71})
    probes = []
    for _ in range(3):
        ms = [(1 + width / 50) * random.normal(share if width % 8 == 0 else 1.0, noise) for width in widths]
        probes.append(Curve(tuple(widths), tuple(ms), (0.0,) * len(ms)))
    assert fit_width_classes(probes).multiple == multiple


def test_the_best_of_many_candidates_must_be_better_than_one_would(monkeypatch):
    """Noise in which the best of them is what a single one would be in a hundredth of all cases."""
    random, widths = np.random.default_rng(4), range(24, 44)
    ms = tuple((1 + width / 50) * random.normal(1.0, 0.05) for width in widths)
    probes = [Curve(tuple(widths), ms, (0.0,) * len(ms))]
    assert fit_width_classes(probes) == WidthClasses()
    is_better = width_alignment._is_better
    monkeypatch.setattr(width_alignment, "_is_better", lambda errors, than, _: is_better(errors, than, 0.01))
    assert fit_width_classes(probes) != WidthClasses()
