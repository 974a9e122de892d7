"""Levels of precision: which numbers weights are, and what a scale of the loss changes."""

import dataclasses

import pytest
import torch
from rich.console import Console
from small_run import built, final_state, small_config, train_checkpoints
from test_processes import assert_same
from test_retrain import _InterruptAt

import tfnas
from tfnas.core.errors import Interrupted, RunFailed
from tfnas.runs import session
from tfnas.runs.distributed import DistributedContext
from tfnas.training.retraining import retrain
from tfnas.training.train_config import TrainConfig
from tfnas.training.train_setup import prepare

QUIET = Console(quiet=True)
ONE = DistributedContext(0, 1, torch.device("cpu"))
FEW_STEPS = {"epochs": 1, "batch_size": 360, "dropout_rate": 0.0, "drop_connect_rate": 0.0}


def dtypes_of(folder, **changes):
    """The number types of batch norm's weights, and of all others, as training has them."""
    learner = built(prepare(small_config(folder, "run", **changes), ONE)).learner
    norms = {
        f"{name}.{part}"
        for name, module in learner.network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for part, _ in module.named_parameters()
    }
    weights = dict(learner.network.named_parameters())
    assert norms and norms < weights.keys()
    return {weights[name].dtype for name in norms}, {weights[name].dtype for name in weights.keys() - norms}


@pytest.mark.parametrize(
    ("changes", "norm", "others"),
    [
        ({"opt_level": "O0"}, torch.float32, torch.float32),
        ({"opt_level": "O1"}, torch.float32, torch.float32),
        ({"opt_level": "O2", "keep_batchnorm_fp32": True}, torch.float32, torch.float32),
        ({"opt_level": "O3"}, torch.bfloat16, torch.bfloat16),
        ({"opt_level": "O3", "keep_batchnorm_fp32": True}, torch.float32, torch.bfloat16),
    ],
)
def test_what_weights_are(tmp_path, changes, norm, others):
    assert dtypes_of(tmp_path, **changes) == ({norm}, {others})


def test_a_network_trained_in_half_precision_is_kept_in_float32(tmp_path):
    result = retrain(small_config(tmp_path, "run", opt_level="O3", **FEW_STEPS), QUIET)
    saved = torch.load(result.run_dir / "model.pt", weights_only=True)["state_dict"]
    trained, _, _ = train_checkpoints(result.run_dir).load_latest()
    assert {value.dtype for value in trained["network"].values()} == {torch.bfloat16, torch.int64}
    assert {value.dtype for value in saved.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(saved[name], value.to(saved[name].dtype)) for name, value in trained["network"].items())
    assert tfnas.load(result.run_dir)(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


def test_a_run_in_half_precision_resumes_bit_for_bit(tmp_path, monkeypatch):
    settings = {"opt_level": "O3", "loss_scale": "256", "epochs": 1, "batch_size": 180}
    retrain(small_config(tmp_path, "whole", **settings), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: _InterruptAt(3))
        with pytest.raises(Interrupted):
            retrain(small_config(tmp_path, "run", **settings), QUIET)
    retrain(TrainConfig(snapshot=str(tmp_path / "run")), QUIET)
    for ours, theirs in zip(final_state(tmp_path / "run"), final_state(tmp_path / "whole"), strict=True):
        assert_same(ours, theirs)


def test_a_scale_that_is_a_power_of_two_changes_nothing(tmp_path, float64):
    weights = []
    for scale in (None, "1024"):
        result = retrain(small_config(tmp_path, f"run{scale}", loss_scale=scale, **FEW_STEPS), QUIET)
        weights.append(train_checkpoints(result.run_dir).load_latest()[0]["network"])
    assert_same(*weights)


def test_a_scale_that_overflows_is_named(tmp_path):
    with pytest.raises(RunFailed, match=r"a gradient is not finite.*lower --loss_scale or --lr"):
        retrain(small_config(tmp_path, "run", loss_scale="1e39", **FEW_STEPS), QUIET)


def test_apex_is_told_all_that_was_said(tmp_path, monkeypatch):
    told = []

    class Apex:
        @staticmethod
        def initialize(network, optimizer, **said):
            told.append(said)
            return network, optimizer

    monkeypatch.setattr("tfnas.training.train_steps.find_apex", lambda _: Apex)
    config = small_config(tmp_path, "run", amp_backend="apex", opt_level="O3")
    built(prepare(config, ONE))
    said = {"keep_batchnorm_fp32": False, "loss_scale": "dynamic"}
    built(prepare(dataclasses.replace(config, **said), ONE))
    built(prepare(dataclasses.replace(config, loss_scale="128.0"), ONE))
    assert told == [
        {"opt_level": "O3", "keep_batchnorm_fp32": None, "loss_scale": None},
        {"opt_level": "O3", "keep_batchnorm_fp32": False, "loss_scale": "dynamic"},
        {"opt_level": "O3", "keep_batchnorm_fp32": None, "loss_scale": 128.0},
    ]
