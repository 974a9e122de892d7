"""The search on a GPU: the same mathematics as on the CPU, and resumable bit for bit with deterministic algorithms."""

from contextlib import nullcontext

import pytest
import torch
from small_search import small_config
from test_resume import QUIET, _InterruptAt, assert_same, final_state

from tfnas.errors import Interrupted
from tfnas.searching import SearchConfig, search
from tfnas.searching import loop as search_loop
from tfnas.searching.session import start_session
from tfnas.searching.setup import prepare
from tfnas.searching.steps import architecture_loss, weight_loss
from tfnas.supernet import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_losses_and_gradients_are_those_of_the_cpu(tmp_path, float64):
    found = []
    for device in ("cpu", "cuda"):
        session = start_session(prepare(small_config(tmp_path, "run", device=device)))
        learner = session.learner
        images, labels = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8)
        batch = session.place(images, labels)
        weights, _ = weight_loss(learner, *batch, (Path((0, 1, 0)), Path((1, 0, 1))))
        architecture, _ = architecture_loss(learner, *batch, 3.0, torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(architecture, list(learner.parameters.parameters()))
        found.append([value.detach().cpu() for value in (weights, architecture, *gradients)])
    for cpu, gpu in zip(*found, strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-9, atol=1e-12)


def test_a_deterministic_search_resumes_bit_for_bit(tmp_path, monkeypatch):
    settings = {"device": "cuda", "deterministic": True}
    search(small_config(tmp_path, "whole", **settings), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(search_loop, "watch_interruption", lambda _: nullcontext(_InterruptAt(17)))
        with pytest.raises(Interrupted):
            search(small_config(tmp_path, "cut", **settings), QUIET)
    search(SearchConfig(resume=str(tmp_path / "cut")), QUIET)
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))
