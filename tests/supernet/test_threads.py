"""Computing in parallel: order, threads, gradients and errors."""

from __future__ import annotations

import threading

import pytest
import torch

from tfnas.searching.differentiable.supernet_learner import path_losses
from tfnas.supernet.cpu.mbconv_autograd import parallel_map, serial_operators


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_that_share_what_there_is(threads):
    def task(number):
        torch.ones(100_000).sum()  # starts a thread's pool, which must not be of all threads
        return number, threading.current_thread(), torch.get_num_threads()

    for _ in range(2):
        numbers, members, each = zip(*parallel_map(task, range(4)), strict=True)
        assert numbers == (0, 1, 2, 3)
        assert len(set(members)) <= min(threads, 4)
        assert set(each) == {max(1, threads // min(threads, 4))}
        assert torch.get_num_threads() == threads


def test_serial_operators_leave_all_threads_to_the_pool(threads):
    with serial_operators():
        assert torch.get_num_threads() == 1
        members, each = zip(
            *parallel_map(lambda _: (threading.current_thread(), torch.get_num_threads()), range(2)), strict=True
        )
        assert len(set(members)) <= min(threads, 2)
        assert set(each) == {max(1, threads // 2)}
        assert (threading.main_thread() in members) == (threads == 1)
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="inside"), serial_operators():
        raise ValueError("inside")
    assert torch.get_num_threads() == threads
    assert len(parallel_map(lambda _: torch.get_num_threads(), range(2))) == 2


def test_two_compute_at_the_same_time():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=60)
    assert sorted(parallel_map(lambda _: meeting.wait(), range(2))) == [0, 1]
    torch.set_num_threads(before)


@pytest.mark.parametrize("records", [False, True])
def test_gradients_are_recorded_as_outside(threads, records):
    with torch.set_grad_enabled(records):
        assert parallel_map(lambda _: torch.is_grad_enabled(), range(3)) == [records] * 3


def test_the_first_error_comes_when_all_have_ended(threads):
    done = []

    def call(item):
        if isinstance(item, str):
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match="first"):
        parallel_map(call, ["first", "second", 1])
    assert done == ([1] if threads > 1 else [])
    assert parallel_map(int, [1.0, 2.0]) == [1, 2]


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("way", ["here", "as on a GPU"])
def test_path_losses_have_the_gradients_of_plain_ones(low_memory, way, threads, request):
    if way == "as on a GPU":
        request.getfixturevalue("as_on_a_gpu")
    torch.manual_seed(3)
    features = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    both, one, none = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    functions = [lambda x: (x @ both).exp().sum(), lambda x: ((x * both) @ one).square().sum(), lambda x: x.sum()]
    wanted = (features, both, one, none)

    def total(scalars):
        return scalars[0] + 2 * scalars[1] * scalars[2]

    plain = total([function(features * 2) for function in functions])
    found = total(path_losses(functions, features * 2, (both, one, none), low_memory))
    torch.testing.assert_close(found, plain)
    for name, result, expected in zip(
        ("features", "both", "one"), torch.autograd.grad(found, wanted, allow_unused=True),
        torch.autograd.grad(plain, wanted, allow_unused=True), strict=False,
    ):  # fmt: skip
        torch.testing.assert_close(result, expected, msg=lambda text, name=name: f"{name}: {text}")


def test_what_no_function_uses_has_no_gradient(threads):
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    scalars = path_losses([lambda x: (x * used).sum()] * 2, torch.ones(2), (used, unused), low_memory=False)
    assert torch.autograd.grad(sum(scalars), (used, unused), allow_unused=True)[1] is None
