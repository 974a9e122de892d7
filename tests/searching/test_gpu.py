"""The search on a GPU: the same mathematics as on the CPU, and resumable bit for bit with deterministic algorithms."""

from contextlib import nullcontext

import pytest
import torch
from made_devices import check_equal, check_near, computed_on
from small_search import small_config
from test_resume import QUIET, _InterruptAt, assert_same, final_state

from tfnas.core.errors import Interrupted
from tfnas.runs import session
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.search_config import SearchConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_losses_and_gradients_are_those_of_the_cpu(tmp_path, float64):
    check_equal(computed_on("cpu", tmp_path), computed_on("cuda", tmp_path))


def test_low_memory_computes_the_same(tmp_path, float64):
    check_equal(computed_on("cuda", tmp_path), computed_on("cuda", tmp_path, low_memory=True))


@pytest.mark.parametrize("low_memory", [False, True])
def test_mixed_precision_is_near_single_precision(tmp_path, low_memory):
    check_near(computed_on("cuda", tmp_path), computed_on("cuda", tmp_path, amp=True, low_memory=low_memory))


def test_a_deterministic_search_resumes_bit_for_bit(tmp_path, monkeypatch):
    settings = {"device": "cuda", "deterministic": True}
    search(small_config(tmp_path, "whole", **settings), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(17)))
        with pytest.raises(Interrupted):
            search(small_config(tmp_path, "cut", **settings), QUIET)
    search(SearchConfig(resume=str(tmp_path / "cut")), QUIET)
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))
