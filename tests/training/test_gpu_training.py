"""On a GPU: the losses of the CPU, mixed precision near float32, and a resumed run that is the same run."""

import pytest
import torch
from rich.console import Console
from small_run import final_state, small_config
from test_processes import assert_same
from test_retrain import _InterruptAt

from tfnas.core.errors import Interrupted
from tfnas.runs import session
from tfnas.training.retraining import retrain
from tfnas.training.train_config import TrainConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here"),
]
QUIET = Console(quiet=True)
PLAIN = {"dropout_rate": 0.0, "drop_connect_rate": 0.0, "epochs": 1}


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpu")
    return retrain(small_config(folder, "run", **PLAIN), QUIET).summary


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({}, 1e-3), ({"channels_last": True}, 1e-3), ({"opt_level": "O1"}, 2e-2), ({"opt_level": "O2"}, 5e-2)],
)
def test_losses_are_those_of_the_cpu(tmp_path, on_cpu, options, tolerance):
    summary = retrain(small_config(tmp_path, "run", **{**PLAIN, "device": "cuda", **options}), QUIET).summary
    assert summary["train_loss"] == pytest.approx(on_cpu["train_loss"], rel=tolerance)


@pytest.mark.parametrize("opt_level", ["O0", "O1"])
def test_a_resumed_run_is_the_same_run(tmp_path, monkeypatch, opt_level):
    settings = {"device": "cuda", "deterministic": True, "opt_level": opt_level, "ema_decay": 0.9}
    retrain(small_config(tmp_path, "whole", **settings), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: _InterruptAt(9))
        with pytest.raises(Interrupted):
            retrain(small_config(tmp_path, "run", **settings), QUIET)
    retrain(TrainConfig(snapshot=str(tmp_path / "run")), QUIET)
    for ours, theirs in zip(final_state(tmp_path / "run"), final_state(tmp_path / "whole"), strict=True):
        assert_same(ours, theirs)
