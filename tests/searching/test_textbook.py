"""The whole search step against the benchmark's textbook, in float64."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench_search(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_search

    yield bench_search
    for name in ("bench_search", "textbook_search"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("space", ["digits", pytest.param("imagenet", marks=pytest.mark.slow)])
def test_losses_and_gradients_are_the_textbooks(bench_search, loops_or_operators, space):
    bench_search.check_equal(argparse.Namespace(space=space, device="cpu"))


def test_a_wrong_gradient_is_noticed(bench_search):
    import torch

    one, other = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    bench_search.compare(one.sum(), [one], other.sum(), [other])
    with pytest.raises(AssertionError, match="gradients of parameter 0 differ"):
        bench_search.compare((one * one).sum(), [one], (other * 3 / 3).sum(), [other])
