"""The comparisons of test_gpu.py, of the CPU with itself: they run, hold where they must, and notice what is wrong."""

import pytest
import torch
from made_devices import check_equal, check_near, computed_on


def test_low_memory_computes_the_same(tmp_path, float64):
    check_equal(computed_on("cpu", tmp_path), computed_on("cpu", tmp_path, low_memory=True), rtol=0, atol=0)


@pytest.mark.parametrize("low_memory", [False, True])
def test_several_threads_compute_the_same(tmp_path, float64, low_memory):
    alone = computed_on("cpu", tmp_path, low_memory=low_memory)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        check_equal(alone, computed_on("cpu", tmp_path, low_memory=low_memory))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_gpus_way_computes_the_same(tmp_path, float64, low_memory, request):
    expected = computed_on("cpu", tmp_path)
    request.getfixturevalue("as_on_a_gpu")
    check_equal(expected, computed_on("cpu", tmp_path, low_memory=low_memory))


@pytest.mark.parametrize("low_memory", [False, True])
def test_mixed_precision_is_near_single_precision(tmp_path, low_memory):
    check_near(computed_on("cpu", tmp_path), computed_on("cpu", tmp_path, amp=True, low_memory=low_memory))


def test_single_precision_is_not_taken_for_double(tmp_path):
    single = computed_on("cpu", tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        double = computed_on("cpu", tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(AssertionError, match="weight loss: "):
        check_equal(double, single)


def test_a_gradient_that_points_elsewhere_is_noticed(tmp_path):
    exact, mixed = computed_on("cpu", tmp_path), computed_on("cpu", tmp_path, amp=True)
    with pytest.raises(AssertionError, match="nothing was computed in mixed precision"):
        check_near(exact, exact)
    mixed["gradient of log_alphas"].mul_(
        torch.linspace(0.3, 3, mixed["gradient of log_alphas"].numel()).view_as(mixed["gradient of log_alphas"])
    )
    with pytest.raises(AssertionError, match="gradient of log_alphas"):
        check_near(exact, mixed)
