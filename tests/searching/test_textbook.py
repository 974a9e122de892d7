"""The whole search step against the benchmark's textbook, in float64."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
from tiny import SOME_EXPAND

from tfnas.supernet.supernet import share_weights

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench_search(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_search

    yield bench_search
    for name in ("bench_search", "bench_loader", "textbook_search", "count_operators"):
        sys.modules.pop(name, None)


SPACES = ["digits", pytest.param("imagenet", marks=pytest.mark.slow)]


@pytest.mark.parametrize("space", SPACES)
def test_losses_and_gradients_are_the_textbooks(bench_search, kernels_or_operators, space):
    bench_search.check_equal(argparse.Namespace(space=space, device="cpu"))


@pytest.mark.parametrize("space", SPACES)
def test_a_gpus_way_gives_the_textbooks_losses_and_gradients(bench_search, as_on_a_gpu, space):
    bench_search.check_equal(argparse.Namespace(space=space, device="cpu"))


@pytest.fixture(params=[False, True], ids=["own weights", "shared weights"])
def space_where_some_expand(bench_search, request, tmp_path, monkeypatch):
    """The path of a space file; its searches begin with weights of their own or with shared ones."""
    path, make = tmp_path / "some_expand.yaml", bench_search.make_project

    def sharing(*arguments):
        learner = make(*arguments)
        share_weights(learner.supernet)
        return learner

    if request.param:
        monkeypatch.setattr(bench_search, "make_project", sharing)
    names = [operation.name for operation in SOME_EXPAND]
    path.write_text(f"extends: digits\noperations: [{', '.join(names)}]\n")
    return str(path)


def test_operations_without_an_expansion_give_the_textbooks(
    bench_search, kernels_or_operators, space_where_some_expand
):
    bench_search.check_equal(argparse.Namespace(space=space_where_some_expand, device="cpu"))


def test_operations_without_an_expansion_as_on_a_gpu(bench_search, as_on_a_gpu, space_where_some_expand):
    bench_search.check_equal(argparse.Namespace(space=space_where_some_expand, device="cpu"))


@pytest.mark.parametrize("space", SPACES)
def test_on_another_device_all_is_computed_there_and_a_step_hardly_waits(bench_search, space):
    """Tensors without numbers stand for a GPU's: what mixes devices fails, and what asks for numbers is noticed."""
    import count_operators

    arguments = argparse.Namespace(space=space, device="meta", image_size=32, batch=2)
    found = {variant: count_operators.count(variant, arguments) for variant in ("textbook", "project", "low_memory")}
    waits = {variant: [steps[what]["waits"] for what in ("weight", "architecture")] for variant, steps in found.items()}
    assert waits["project"] == [1, 2]  # an architecture step begins with noise, which comes from the CPU
    assert waits["low_memory"] == [3, 2]
    assert found["project"]["architecture"]["operators"] < found["textbook"]["architecture"]["operators"] / 2
    assert found["project"]["weight"]["operators"] < 0.8 * found["textbook"]["weight"]["operators"]


def test_what_a_search_of_imagenet100_takes(bench_search):
    seconds = {"weight": [0.2, 0.1, 0.1, 0.1], "architecture": [0.3, 0.3]}
    found = bench_search.projected(seconds, argparse.Namespace(space="imagenet", image_size=224, batch=32))
    weight_steps, architecture_steps = 90 * 3193, 80 * 1597  # 102,170 images; every other step after ten epochs
    assert found["hours"] == pytest.approx((0.1 * weight_steps + 0.3 * architecture_steps) / 3600)
    assert found["images_per_second"] == pytest.approx(96 / 0.5)


def test_a_wrong_gradient_is_noticed(bench_search):
    import torch

    one, other = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    bench_search.compare(one.sum(), [one], other.sum(), [other])
    with pytest.raises(AssertionError, match="gradients of parameter 0 differ"):
        bench_search.compare((one * one).sum(), [one], (other * 3 / 3).sum(), [other])
