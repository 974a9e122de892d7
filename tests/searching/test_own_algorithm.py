"""An algorithm outside the package is a run like every other: killed, resumed, told apart, and read back."""

import json
import time
from contextlib import nullcontext

import pytest
import yaml
from random_search import RandomConfig, random_search
from real_process import RealProcess
from rich.console import Console
from test_resume import _InterruptAt, assert_same

import tfnas
from tfnas.core.errors import InputError, Interrupted, RunFailed
from tfnas.runs import session
from tfnas.runs.run_directory import Checkpoints
from tfnas.utils.files import write_whole

QUIET = Console(quiet=True)
SETTINGS = {"seed": 5, "device": "cpu", "save_minutes": 1e-9}  # it saves after every step


def final_state(run_dir):
    state, _, _ = Checkpoints(run_dir, "random").load_latest()
    del state["seconds"], state["settings"]
    return state, (run_dir / "architecture.json").read_bytes()


def run_quietly(settings):
    random_search(RandomConfig(**settings), QUIET)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is left alone."""
    return random_search(RandomConfig(run_dir=str(tmp_path_factory.mktemp("whole") / "run"), **SETTINGS), QUIET)


def test_its_run_directory_is_one_like_every_other(whole):
    run_dir, summary = whole
    assert json.loads((run_dir / "summary.json").read_text()) == summary
    architecture = tfnas.Architecture.load(run_dir)
    assert architecture == tfnas.Architecture.parse(summary["architecture"])
    assert tfnas.count(tfnas.Network(architecture), 16).macs == summary["macs"] <= 2_000_000
    assert [entry["epoch"] for entry in summary["history"]] == [1, 2, 3] and summary["processes"] == 1
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["most_macs"] == 2_000_000
    assert "epoch 3/3" in (run_dir / "log.txt").read_text() and len(list((run_dir / "tensorboard").iterdir())) == 1


def test_killed_and_resumed_it_ends_bit_for_bit(tmp_path, whole):
    run_dir = tmp_path / "run"
    process = RealProcess(run_quietly, {**SETTINGS, "run_dir": str(run_dir)}, said=tmp_path / "said.txt")
    checkpoints, deadline = Checkpoints(run_dir, "random"), time.monotonic() + 120
    while len(checkpoints.saved()) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert not (run_dir / "summary.json").exists()
    random_search(RandomConfig(resume=str(run_dir)), QUIET)
    assert_same(final_state(run_dir), final_state(whole[0]))


def test_interrupted_it_says_how_to_resume(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(12)))
        with pytest.raises(Interrupted, match=r"the state is saved\. Resume with: random_search\("):
            random_search(RandomConfig(run_dir=str(tmp_path / "run"), **SETTINGS), QUIET)
    with pytest.raises(InputError, match="--draws 7 differs from the run's own 8"):
        random_search(RandomConfig(resume=str(tmp_path / "run"), draws=7), QUIET)
    random_search(RandomConfig(resume=str(tmp_path / "run")), QUIET)
    assert_same(final_state(tmp_path / "run"), final_state(whole[0]))


def test_a_full_disk_leaves_what_was_saved(tmp_path, monkeypatch):
    written = []

    def refusing(path, data):
        if path.suffix == ".pt":
            written.append(path)
        if len(written) == 6:
            raise RunFailed("cannot write it: No space left on device")
        write_whole(path, data)

    monkeypatch.setattr("tfnas.runs.run_directory.write_whole", refusing)
    with pytest.raises(RunFailed, match=r"No space left on device\. The last saved state is intact\. Resume with"):
        random_search(RandomConfig(run_dir=str(tmp_path / "run"), **SETTINGS), QUIET)
    assert Checkpoints(tmp_path / "run", "random").load_latest()[0]["step"] == 4
