"""Visits that were disturbed, and what is made of them."""

from __future__ import annotations

import pytest
from tiny import tiny_space

from tfnas.bench.benchmark_cases import network_case, random_architectures
from tfnas.bench.timing import InterleavedTiming, TimingSample

USUAL = TimingSample((1.0, 1.0), (1.0, 1.01))


class Told:
    """A journal that answers with the visits it is given, in turn."""

    def __init__(self, visits):
        self.answers = list(visits)

    def measure(self, cases, order, calls):
        for _ in order:
            yield self.answers.pop(0)


def visited(first, again):
    """The visit of one case that counts, where the other 19 were as usual, and how many were repeated."""
    (network,) = random_architectures(tiny_space(), 1, 10, 0)
    timing = InterleavedTiming(Told([first, *[USUAL] * 19, again]).measure, 2, 0, lambda: None)
    timing.run([network_case(network)], 20)
    return timing.by_name[network_case(network).name][0], timing.repeated


@pytest.mark.parametrize(
    ("first", "again", "kept"),
    [
        (TimingSample((3.0, 3.0), (2.0, 2.0)), TimingSample((1.0, 1.0), (1.0, 1.02)), "again"),  # slow, however even
        (TimingSample((3.0, 1.0), (2.0, 1.0)), TimingSample((1.0, 1.0), (1.0, 1.02)), "again"),
        (
            TimingSample((3.0, 3.0), (2.0, 2.0)),
            TimingSample((3.1, 3.0), (2.0, 2.3)),
            "first",
        ),  # both slow: the more even one
        (TimingSample((1.3, 1.0), (1.6, 1.0)), TimingSample((3.0, 3.0), (2.0, 2.0)), "first"),
    ],
)
def test_the_less_disturbed_of_two_visits_counts(first, again, kept):
    assert visited(first, again) == ({"first": first, "again": again}[kept], 1)


def test_an_undisturbed_visit_is_not_repeated():
    assert visited(USUAL, None) == (USUAL, 0)
