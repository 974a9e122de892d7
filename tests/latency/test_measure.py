"""Measuring: structure and invariants. How fast anything is, is not tested."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from tfnas.bench.timing import Timing, time_network
from tfnas.utils.torch_settings import pinned, torch_threads


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


def test_time_network_calls_in_evaluation_mode_and_restores_it():
    calls = []
    module = Recorder("net", calls).train()
    timing = time_network(module, torch.ones(2, 3), runs=7, warmup=2)
    assert len(calls) == 9 and timing.runs == 7
    assert not any(training for _, training, _ in calls) and module.training
    assert timing.median_ms > 0 and timing.spread_ms >= 0


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
