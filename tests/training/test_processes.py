"""Several processes train the network that one would have trained, and none is left waiting for one that has died."""

import signal
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_run import (
    final_state,
    run_processes,
    small_config,
    small_settings,
    start_processes,
    summary_of,
    train_checkpoints,
)

from tfnas.training.retraining import retrain

SAME_LOSSES = {"dropout_rate": 0.0, "drop_connect_rate": 0.0, "sync_bn": True, "batch_size": 144}


@pytest.fixture(scope="module")
def two_together(tmp_path_factory):
    """A run of two processes, left alone."""
    folder = tmp_path_factory.mktemp("two")
    run_processes(folder, small_settings(folder, "run", **SAME_LOSSES), dtype=torch.float64)
    return folder / "run"


def test_two_processes_have_the_losses_of_one(tmp_path, two_together, float64):
    retrain(small_config(tmp_path, "run", **SAME_LOSSES), Console(quiet=True))
    one, two = summary_of(tmp_path / "run"), summary_of(two_together)
    assert (one["processes"], two["processes"]) == (1, 2)
    for entry, other in zip(one["history"], two["history"], strict=True):
        assert other == pytest.approx(entry, rel=1e-6)
    states = [final_state(run_dir)[1]["state_dict"] for run_dir in (tmp_path / "run", two_together)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-6, atol=1e-9)


def test_a_killed_process_ends_the_other_and_both_go_on_bit_for_bit(tmp_path, two_together):
    settings = small_settings(tmp_path, "killed", **SAME_LOSSES)
    processes = start_processes(tmp_path, settings, dtype=torch.float64)
    run_dir = Path(settings["run_dir"])
    deadline = time.monotonic() + 120
    while len(train_checkpoints(run_dir).saved()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[1].kill()
    assert processes[0].end(60) == 1
    said = processes[0].said()
    assert "another process of this run has exited" in said and "--snapshot" in said
    run_processes(tmp_path, {"snapshot": str(run_dir)}, dtype=torch.float64)
    for ours, theirs in zip(final_state(run_dir), final_state(two_together), strict=True):
        assert_same(ours, theirs)


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_ends_both(tmp_path):
    settings = small_settings(tmp_path, "run", epochs=200)
    processes = start_processes(tmp_path, settings)
    while not train_checkpoints(Path(settings["run_dir"])).saved():
        time.sleep(0.05)
    processes[1].send(signal.SIGTERM)
    assert [process.end(60) for process in processes] == [1, 1]  # these have no command line's exit status
    assert all("the state is saved" in process.said() for process in processes)


def assert_same(one, other):
    """Bit-equal, through dictionaries and lists."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.mark.slow
def test_joint_statistics_in_mixed_precision(tmp_path):
    run_processes(tmp_path, small_settings(tmp_path, "run", sync_bn=True, opt_level="O1", epochs=1))
    assert summary_of(tmp_path / "run")["train_loss"] < 2.4
