"""Candidates: in the band, all different, from the searched distribution, and as many as there are."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random

import numpy as np
import pytest
from scipy.stats import chisquare
from tiny import SOME_EXPAND, tiny_contents, tiny_space

from tfnas.core.choice import Choice
from tfnas.core.space import Operation, Stage
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import meet_target
from tfnas.latency.table_contents import Curve
from tfnas.searching.differentiable.candidates import TEMPERATURES, draw_candidates, log_prob_gap


def choice_for(space, seed=0, sharpness=1.0):
    """Random preferences and widths; all operations alike at sharpness 0."""
    numbers = np.random.default_rng(seed)
    shape = len(space.blocks), len(space.operations)
    widths = [
        [numbers.choice(space.widths(place, operation)) for operation in space.operations] for place in space.blocks
    ]
    return Choice(
        space=space,
        num_classes=10,
        log_alphas=sharpness * numbers.normal(size=shape),
        log_depths=tuple(sharpness * numbers.normal(size=len(depths)) for depths in space.depth_choices),
        widths=np.array(widths, dtype=np.int64),
    )


def flat_table(space):
    """Every block takes 1 ms, whatever it is: all networks of one depth take the same."""
    contents = tiny_contents(space, random.Random(0))
    curves = {
        key: Curve(curve.widths, (1.0,) * len(curve.widths), curve.spread_ms) for key, curve in contents.curves.items()
    }
    return LatencyTable(dataclasses.replace(contents, curves=curves))


@pytest.fixture
def rich():
    """A space of many networks, a table and a target in its middle."""
    operations = tuple(Operation(k, e, se) for se in (False, True) for k in (3, 5) for e in (2, 4))
    space = tiny_space(operations=operations, stages=(Stage(4, 1, 2, "relu", 1), Stage(6, 2, 2, "swish")))
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    low, high = table.range_ms(space)
    return choice_for(space), table, (low + high) / 2


def drawn(rich, count, seed=0):
    choice, table, target = rich
    return draw_candidates(choice, table, target, meet_target(choice, table, target), count, seed)


def test_all_are_different_and_in_the_band(rich):
    choice, table, target = rich
    candidates = drawn(rich, 24)
    assert len(candidates) == 24 == len({candidate.architecture for candidate in candidates})
    assert [candidate.number for candidate in candidates] == list(range(24))
    for candidate in candidates:
        assert 0.995 * target <= table.architecture_ms(candidate.architecture) <= target
        assert candidate.log_prob_gap <= 1e-12
    first = candidates[0]
    assert first.is_derived and first.architecture == meet_target(choice, table, target) and first.temperature == 0
    assert not any(candidate.is_derived for candidate in candidates[1:])


def test_operations_without_an_expansion_are_drawn_like_the_others():
    space = tiny_space(operations=SOME_EXPAND, stages=(Stage(4, 1, 2, "relu", 1), Stage(6, 2, 2, "swish")))
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    target = sum(table.range_ms(space)) / 2
    candidates = drawn((choice_for(space), table, target), 24)
    assert len({candidate.architecture for candidate in candidates}) == 24
    met = collections.Counter()
    for candidate in candidates:
        assert 0.995 * target <= table.architecture_ms(candidate.architecture) <= target
        met.update(place.block.expands for place in candidate.architecture.blocks)
    assert met[True] > 8 and met[False] > 8


def test_the_seed_decides_and_fewer_are_the_first_of_more(rich):
    many = drawn(rich, 12)
    assert drawn(rich, 12) == many
    assert drawn(rich, 7) == many[:7]
    assert drawn(rich, 12, seed=1)[1:] != many[1:]
    assert len(drawn(rich, 1)) == 1


def test_preference_is_the_loss_of_log_probability(rich):
    choice, _, _ = rich
    for candidate in drawn(rich, 10):
        expected, number = 0.0, 0
        for stage, blocks in enumerate(candidate.architecture.stages):
            depths = choice.space.depth_choices[stage]
            log_depths = choice.log_depths[stage]
            expected += log_depths[depths.index(len(blocks))] - log_depths.max()
            for position, block in enumerate(blocks):
                place = choice.space.blocks[number + position]
                row = choice.log_alphas[number + position]
                expected += row[choice.space.operation_index(place, block)] - row.max()
            number += choice.space.stages[stage].blocks
        assert candidate.log_prob_gap == pytest.approx(expected, abs=1e-12)
        assert log_prob_gap(choice, candidate.architecture) == candidate.log_prob_gap


def test_where_the_band_forbids_nothing_draws_follow_the_probabilities():
    """The second candidate is the first draw that is not the derived network: its share is p / (1 - p(derived))."""
    space = tiny_space(stages=(Stage(4, 1, 1, "relu"), Stage(6, 2, 1, "swish")))
    choice, table = choice_for(space, seed=2, sharpness=0.7), flat_table(space)
    target = table.architecture_ms(choice.derived())
    derived = meet_target(choice, table, target)
    assert derived == choice.derived()
    alphas = np.exp(choice.log_alphas - np.log(np.exp(choice.log_alphas).sum(1, keepdims=True)))
    share = {
        choice.architecture(pair, (1, 1)): alphas[0, pair[0]] * alphas[1, pair[1]]
        for pair in itertools.product(range(2), repeat=2)
    }
    others = [architecture for architecture in share if architecture != derived]
    counts = collections.Counter(
        draw_candidates(choice, table, target, derived, 2, seed)[1].architecture for seed in range(400)
    )
    expected = [400 * share[other] / (1 - share[derived]) for other in others]
    assert chisquare([counts[other] for other in others], expected).pvalue > 0.001


def test_a_decided_search_is_drawn_from_at_a_higher_temperature(rich):
    choice, table, target = rich
    decided = dataclasses.replace(
        choice,
        log_alphas=10 * choice.log_alphas,
        log_depths=tuple(10 * values for values in choice.log_depths),
    )
    candidates = drawn((decided, table, target), 12)
    assert len(candidates) == 12
    temperatures = [candidate.temperature for candidate in candidates[1:]]
    assert temperatures == sorted(temperatures) and temperatures[-1] > TEMPERATURES[0]


def test_a_small_space_gives_what_it_has():
    """Two blocks of two operations, all of one latency: four networks, and no more at any temperature."""
    space = tiny_space(stages=(Stage(4, 1, 1, "relu"), Stage(6, 2, 1, "swish")))
    choice, table = choice_for(space, sharpness=5.0), flat_table(space)
    target = table.architecture_ms(choice.derived())
    told = []
    found = draw_candidates(choice, table, target, meet_target(choice, table, target), 64, 0, told.append)
    expected = {choice.architecture(pair, (1, 1)) for pair in itertools.product(range(2), repeat=2)}
    assert {candidate.architecture for candidate in found} == expected
    assert told[-1] == 4 and told == sorted(told)
