"""Measuring: structure and invariants. How fast anything is, is not tested."""

from __future__ import annotations

import os
import random

import pytest
import torch
from torch import nn

from tfnas.bench.timing import RoundLimits, Timing, call_ms, shuffled_rounds, steady, time_interleaved, time_network
from tfnas.utils.devices import pinned, torch_threads


class Recorder(nn.Module):
    """Notes every call, with what it was given."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, features):
        self.calls.append((self.name, self.training, features._version))
        return features


def test_timing_is_median_and_interquartile_spread():
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 100.0]) == Timing(median_ms=3.0, spread_ms=2.0, runs=5)


def test_networks_are_timed_in_evaluation_mode_with_as_many_runs_as_fit():
    calls = []
    found = list(time_network(lambda: Recorder("net", calls), 4, (1, 2), "cpu", seed=0))
    assert [(timing.batch_size, timing.timing.runs) for timing in found] == [(1, 30), (2, 30)]
    assert len(calls) == 2 * (3 + 1 + 30) and not any(training for _, training, _ in calls)
    assert all(item.timing.median_ms > 0 and item.timing.spread_ms >= 0 for item in found)


def test_calls_timed_together_are_called_in_rounds_each_in_a_new_order():
    called = []
    calls = [lambda name=name: called.append(name) for name in "abc"]
    timings = time_interleaved(calls, RoundLimits(seconds=0.0, fewest=8, most=9, warm_up=2))
    assert [timing.runs for timing in timings] == [8, 8, 8]
    assert called[:9] == [*"aabbcc", *"abc"]
    rounds = [tuple(called[start : start + 3]) for start in range(9, len(called), 3)]
    assert len(rounds) == 8 and all(sorted(row) == [*"abc"] for row in rounds) and len(set(rounds)) > 1


def test_a_round_goes_through_its_groups_one_after_another():
    order = shuffled_rounds([range(3), range(3, 5)], 4, random.Random(0))
    assert len(order) == 20
    for start in range(0, 20, 5):
        assert sorted(order[start : start + 3]) == [0, 1, 2] and sorted(order[start + 3 : start + 5]) == [3, 4]


def test_a_call_is_timed_from_idle_to_idle():
    told = []
    assert call_ms(lambda: told.append("call"), lambda: told.append("wait")) > 0
    assert told == ["wait", "call", "wait"]


def test_steady_computes_without_gradients_on_its_threads_and_cores():
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    with pytest.raises(KeyError), steady(1):
        assert torch.is_inference_mode_enabled() and torch.get_num_threads() == 1
        assert len(os.sched_getaffinity(0)) == 1
        raise KeyError
    assert torch.get_num_threads() == threads and os.sched_getaffinity(0) == cores
    with steady(1, bind=False):
        assert os.sched_getaffinity(0) == cores
    assert not torch.is_inference_mode_enabled()


def test_threads_are_restored_even_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_the_standard_error_of_the_median_is_that_of_normal_draws():
    draws = torch.Generator().manual_seed(0)
    sets = 5 + torch.randn(400, 101, generator=draws).double()
    medians = [Timing.of(row.tolist()) for row in sets]
    spread = torch.tensor([timing.median_ms for timing in medians]).std().item()
    assert sum(timing.standard_error_ms for timing in medians) / 400 == pytest.approx(spread, rel=0.1)


def test_threads_are_bound_to_as_many_cores_and_set_free_again():
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyError), pinned(1):
        assert len(os.sched_getaffinity(0)) == 1 and os.sched_getaffinity(0) <= before
        raise KeyError
    assert os.sched_getaffinity(0) == before
    with pinned(10**4):
        assert os.sched_getaffinity(0) == before
