"""A run may die at any moment: resumed, it ends bit for bit where it would have ended."""

import io
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_search import small_config

from tfnas.errors import InputError, Interrupted, RunFailed
from tfnas.searching import SearchConfig, search
from tfnas.searching import loop as search_loop
from tfnas.searching.checkpoint import load_checkpoint, load_latest, saved_checkpoints

QUIET = Console(quiet=True)
DRIVER = """
import sys
from tfnas.searching import SearchConfig, search
search(SearchConfig(**eval(sys.argv[1])))
"""


def final_state(run_dir):
    """Everything the last checkpoint holds that a resumed run must reproduce, and the result's files."""
    state = load_checkpoint(saved_checkpoints(Path(run_dir))[0])
    kept = {name: state[name] for name in ("parameters", "supernet", "active", "weight_optimizer", "noise", "epoch")}
    files = [(Path(run_dir) / name).read_bytes() for name in ("architecture.json", "model.config")]
    kept["architecture_optimizer"] = state["architecture_optimizer"]
    return kept, files, state["history"]


def assert_same(a, b):
    """Bit-equal, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    search(small_config(folder, "run"), QUIET)
    return final_state(folder / "run")


class _InterruptAt:
    """Stands in for the signal: asks for an interruption once so many steps have been checked."""

    def __init__(self, steps):
        self.left = steps

    @property
    def signal(self):
        self.left -= 1
        return signal.SIGINT if self.left < 0 else None

    def raise_if_asked(self, how):
        if self.left < 0:
            raise Interrupted(f"interrupted; {how}", 130)


@pytest.mark.parametrize("steps", random.Random(0).sample(range(35), 4))
def test_interrupted_at_a_random_step_and_resumed(tmp_path, uninterrupted, monkeypatch, steps):
    setup_config = small_config(tmp_path, "run")
    with monkeypatch.context() as patched:
        patched.setattr(search_loop, "watch_interruption", lambda: _Context(_InterruptAt(steps)))
        with pytest.raises(Interrupted, match="--resume"):
            search(setup_config, QUIET)
    search(SearchConfig(resume=str(tmp_path / "run"), workers=0), QUIET)
    assert_same(final_state(tmp_path / "run"), uninterrupted)


class _Context:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *_):
        return None


def _kill_at_random_points(folder, config, kills, randomizer):
    """Start, kill -9 after a random number of further checkpoints, resume, and so on; the last one runs to its end."""
    settings = {k: v for k, v in vars(config).items() if v is not None}
    run_dir = Path(config.run_dir)
    for kill in range(kills + 1):
        if kill:
            settings = {"resume": str(run_dir), "workers": kill % 2}
        process = subprocess.Popen([sys.executable, "-c", DRIVER, repr(settings)], stdout=subprocess.DEVNULL)
        if kill == kills:
            assert process.wait(240) == 0
            return
        seen = _newest(run_dir)
        changes = randomizer.randint(1, 30 // (kills + 1))
        deadline = time.monotonic() + 120
        while changes and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
            if _newest(run_dir) != seen:
                seen, changes = _newest(run_dir), changes - 1
        process.kill()
        process.wait()


def _newest(run_dir):
    return next(iter(saved_checkpoints(run_dir)), None)


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_process(tmp_path, uninterrupted, kills):
    _kill_at_random_points(tmp_path, small_config(tmp_path, "run"), kills, random.Random(kills))
    assert_same(final_state(tmp_path / "run"), uninterrupted)


def test_truncated_checkpoint_is_passed_over(tmp_path, uninterrupted):
    search(small_config(tmp_path, "run"), QUIET)
    newest = saved_checkpoints(tmp_path / "run")[0]
    newest.write_bytes(newest.read_bytes()[:-1000])
    _, path, problems = load_latest(tmp_path / "run")
    assert path == saved_checkpoints(tmp_path / "run")[1]
    assert "damaged" in problems[0] and newest.name in problems[0]
    console = Console(record=True, width=200, file=io.StringIO())
    search(SearchConfig(resume=str(tmp_path / "run")), console)
    assert "damaged" in console.export_text()
    assert_same(final_state(tmp_path / "run"), uninterrupted)


def test_flipped_bit_is_detected(tmp_path):
    search(small_config(tmp_path, "run", epochs=2), QUIET)
    newest = saved_checkpoints(tmp_path / "run")[0]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(newest)


def test_killed_before_the_first_checkpoint(tmp_path, uninterrupted):
    search(small_config(tmp_path, "run"), QUIET)
    for path in saved_checkpoints(tmp_path / "run"):
        path.unlink()
    search(SearchConfig(resume=str(tmp_path / "run")), QUIET)
    assert_same(final_state(tmp_path / "run"), uninterrupted)


def test_full_disk_keeps_what_was_saved(tmp_path, monkeypatch):
    config = small_config(tmp_path, "run")
    real, calls = search_loop.save_checkpoint, []

    def failing(*arguments):
        calls.append(None)
        if len(calls) == 5:
            monkeypatch.setattr("tfnas.files.os.fsync", _no_space)
        return real(*arguments)

    monkeypatch.setattr(search_loop, "save_checkpoint", failing)
    with pytest.raises(RunFailed, match=r"No space left.*kept.*--resume"):
        search(config, QUIET)
    monkeypatch.undo()
    state, _, problems = load_latest(tmp_path / "run")
    assert not problems and state["step"] == 3
    assert not [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.startswith(".")]


def _no_space(_handle):
    raise OSError(28, "No space left on device")


def test_settings_of_a_resumed_run_stay(tmp_path):
    search(small_config(tmp_path, "run", epochs=2), QUIET)
    with pytest.raises(InputError, match=r"--target_lat 3.* differs from the run's own"):
        search(SearchConfig(resume=str(tmp_path / "run"), target_lat=3.0), QUIET)


def test_occupied_directory_is_refused(tmp_path):
    search(small_config(tmp_path, "run", epochs=2), QUIET)
    with pytest.raises(InputError, match=r"not empty.*--resume"):
        search(small_config(tmp_path, "run"), QUIET)


def test_file_in_the_directorys_place(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="cannot make the run directory"):
        search(small_config(tmp_path, "run"), QUIET)


def test_other_space_is_refused(tmp_path):
    search(small_config(tmp_path, "run", epochs=2), QUIET)
    space = tmp_path / "tiny.yaml"
    space.write_text(space.read_text().replace("- k3_e3_se\n", ""))
    with pytest.raises(InputError, match="its space was"):
        search(SearchConfig(resume=str(tmp_path / "run")), QUIET)


def test_foreign_objects_in_a_checkpoint_are_refused(tmp_path):
    torch.save({"format": "tfnas-search-checkpoint", "payload": random.Random(1)}, tmp_path / "search-0001-000000.pt")
    with pytest.raises(InputError, match="refused because loading them could run code"):
        load_checkpoint(tmp_path / "search-0001-000000.pt")


def test_other_table_is_refused(tmp_path):
    search(small_config(tmp_path, "run", epochs=2), QUIET)
    table = tmp_path / "table.json"
    table.write_text(table.read_text().replace("Made-up Processor", "Another Processor"))
    with pytest.raises(InputError, match="its table was"):
        search(SearchConfig(resume=str(tmp_path / "run")), QUIET)
