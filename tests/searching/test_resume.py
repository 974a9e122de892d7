"""A run may die at any moment: resumed, it ends bit for bit where it would have ended."""

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from real_process import RealProcess
from rich.console import Console
from small_search import small_config, write_inputs
from tiny import SOME_EXPAND

from tfnas.core.errors import InputError, Interrupted, RunFailed
from tfnas.runs import session
from tfnas.runs.run_directory import (
    SEARCH_KIND,
    Checkpoints,
    RunDirectory,
    load_checkpoint,
    run_path,
    search_checkpoints,
)
from tfnas.searching.differentiable import differentiable_search
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.optimizers import ElasticSGD
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import prepare

QUIET = Console(quiet=True)


def final_state(run_dir):
    """Everything the last checkpoint holds that a resumed run must reproduce, and the result's files."""
    state = load_checkpoint(search_checkpoints(Path(run_dir)).saved()[0], SEARCH_KIND)
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
def uninterrupted(small_search):
    return final_state(small_search)


@pytest.fixture
def run(small_search, tmp_path):
    """A finished run in `run`, with its inputs, to be tampered with."""
    folder = tmp_path / "copy"
    shutil.copytree(small_search.parent, folder)
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(small_search.parent), str(folder)))
    return folder / "run"


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


@pytest.mark.parametrize("points", [(8, *sorted(random.Random(0).sample(range(10, 35), 2)))])
def test_interrupted_at_random_steps_and_resumed(tmp_path, uninterrupted, monkeypatch, points):
    """And once before the first checkpoint: then it begins again."""
    config = small_config(tmp_path, "run")
    lives = [1, *(later - before for before, later in pairwise([0, *points]))]
    for number, steps in enumerate(lives):
        if number == 1:
            assert search_checkpoints(tmp_path / "run").saved()
            for path in search_checkpoints(tmp_path / "run").saved():
                path.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(session, "watch_interruption", lambda _, at=steps: nullcontext(_InterruptAt(at)))
            with pytest.raises(Interrupted, match="--resume"):
                search(config, QUIET)
        config = SearchConfig(resume=str(tmp_path / "run"), workers=0)
    search(config, QUIET)
    assert_same(final_state(tmp_path / "run"), uninterrupted)


def test_low_memory_changes_nothing_and_rescues_a_run(tmp_path, monkeypatch):
    """Out of memory, a run goes on with --low_memory, to the same end bit for bit."""
    short = {"epochs": 1, "warmup_epochs": 0, "batch_size": 270}
    search(small_config(tmp_path, "whole", **short), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(2)))
        with pytest.raises(Interrupted, match="--resume"):
            search(small_config(tmp_path, "run", **short), QUIET)
    taken, real = [], differentiable_search.weight_loss

    def seen(learner, *arguments):
        taken.append({operation.low_memory for *_, operation in learner.supernet.operations()})
        return real(learner, *arguments)

    monkeypatch.setattr(differentiable_search, "weight_loss", seen)
    search(SearchConfig(resume=str(tmp_path / "run"), low_memory=True), QUIET)
    assert taken and all(how == {True} for how in taken)
    assert_same(final_state(tmp_path / "run"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("way", ["here", "as on a GPU"])
def test_a_search_where_some_operations_expand_resumes_bit_for_bit(request, tmp_path, monkeypatch, way):
    """As on a GPU: what it makes once, while widths stay, is made again."""
    if way == "as on a GPU":
        request.getfixturevalue("as_on_a_gpu")
    inputs = write_inputs(tmp_path, operations=SOME_EXPAND)
    short = {"epochs": 2, "batch_size": 180, "save_minutes": 60.0}  # six steps of warm-up, and six
    search(small_config(tmp_path, "whole", inputs, **short), QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(8)))
        with pytest.raises(Interrupted):
            search(small_config(tmp_path, "cut", inputs, **short), QUIET)
    search(SearchConfig(resume=str(tmp_path / "cut")), QUIET)
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))


def test_mixed_precision_is_refused_without_a_gpu(tmp_path):
    with pytest.raises(InputError, match="--amp is for GPUs"):
        search(small_config(tmp_path, "run", amp=True), QUIET)
    assert not (tmp_path / "run").exists()


def _search(settings):
    search(SearchConfig(**settings), QUIET)


def _kill_after_checkpoints(folder, settings, changes):
    """Start a process that searches, and kill -9 it after so many further checkpoints."""
    run_dir = folder / "run"
    seen = _newest(run_dir)
    process = RealProcess(_search, settings, said=folder / "said.txt")
    deadline = time.monotonic() + 120
    while changes and process.is_running() and time.monotonic() < deadline:
        time.sleep(0.005)
        if _newest(run_dir) != seen:
            seen, changes = _newest(run_dir), changes - 1
    process.kill()


def _newest(run_dir):
    return next(iter(search_checkpoints(run_dir).saved()), None)


@pytest.mark.filterwarnings("ignore:.*(worker processes|multi-threaded)")
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_process(tmp_path, uninterrupted, kills):
    """Killed again and again, at random points; the last life, with a loader process, is here and runs to the end."""
    randomizer = random.Random(kills)
    settings = vars(small_config(tmp_path, "run"))
    for kill in range(kills):
        _kill_after_checkpoints(tmp_path, settings, randomizer.randint(1, 30 // (kills + 1)))
        settings = {"resume": str(tmp_path / "run"), "workers": (kill + 1) % 2}
    _search(settings)
    assert_same(final_state(tmp_path / "run"), uninterrupted)


def test_truncated_checkpoint_is_passed_over(run, uninterrupted):
    newest = search_checkpoints(run).saved()[0]
    newest.write_bytes(newest.read_bytes()[:-1000])
    _, path, problems = search_checkpoints(run).load_latest()
    assert path == search_checkpoints(run).saved()[1]
    assert "damaged" in problems[0] and newest.name in problems[0]
    console = Console(record=True, width=200, file=io.StringIO())
    search(SearchConfig(resume=str(run)), console)
    assert "damaged" in console.export_text()
    assert_same(final_state(run), uninterrupted)


def archive_content(path, name):
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_flipped_bit_is_detected(run):
    newest = search_checkpoints(run).saved()[0]
    with zipfile.ZipFile(newest) as archive:  # in the middle of the largest tensor
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    data = bytearray(newest.read_bytes())
    tensor = archive_content(newest, largest.filename)
    data[data.index(tensor) + len(tensor) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(newest, SEARCH_KIND)


def test_full_disk_keeps_what_was_saved(tmp_path, monkeypatch):
    config = small_config(tmp_path, "run")
    real, calls = Checkpoints.save, []

    def failing(*arguments):
        calls.append(None)
        if len(calls) == 5:
            monkeypatch.setattr("tfnas.utils.files.os.fsync", _no_space)
        return real(*arguments)

    monkeypatch.setattr(Checkpoints, "save", failing)
    with pytest.raises(RunFailed, match=r"No space left.*intact.*--resume"):
        search(config, QUIET)
    monkeypatch.undo()
    state, _, problems = search_checkpoints(tmp_path / "run").load_latest()
    assert not problems and state["step"] == 3
    assert not [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_removed_directory_is_not_told_as_kept(tmp_path, monkeypatch):
    real, calls = Checkpoints.save, []

    def removing(*arguments):
        calls.append(None)
        if len(calls) == 5:
            shutil.rmtree(tmp_path / "run")
            raise RunFailed("cannot write it: No such file or directory")
        return real(*arguments)

    monkeypatch.setattr(Checkpoints, "save", removing)
    with pytest.raises(
        RunFailed, match=r"The saved state is lost because .*run was removed.*start a new run$"
    ) as failed:
        search(small_config(tmp_path, "run"), QUIET)
    assert "--resume" not in str(failed.value) and "intact" not in str(failed.value)


def test_two_damaged_checkpoints_are_not_told_to_be_resumed(run):
    for path in search_checkpoints(run).saved():
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"no readable checkpoint.*start a new run$"):
        search(SearchConfig(resume=str(run)), QUIET)


def _no_space(_handle):
    raise OSError(28, "No space left on device")


def test_a_way_out_of_a_failure_is_kept_for_the_next_resumption(run):
    search(SearchConfig(resume=str(run), w_lr=0.01), QUIET)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert (settings["w_lr"], settings["resume"]) == (0.01, None)  # so that --config begins a new run of it


def test_what_was_said_is_compared_even_at_its_default(run):
    said = SearchConfig(resume=str(run), seed=2)  # 2 is the default, 4 the run's own
    search(said, QUIET)
    with pytest.raises(InputError, match="--seed 2 differs from the run's own 4"):
        search(said, QUIET, given={"resume", "seed"})


@pytest.mark.parametrize(
    ("name", "value"), [("target_lat", "fifteen"), ("seed", None), ("epochs", "3"), ("data", "digit")]
)
def test_wrong_types_in_a_saved_configuration(run, name, value):
    document = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**document, name: value}))
    with pytest.raises(InputError, match=f"config.yaml: {name} must be"):
        search(SearchConfig(resume=str(run)), QUIET)


def as_an_earlier_version_saved_it(run_dir):
    """Take from the checkpoints what earlier versions did not save."""
    checkpoints = search_checkpoints(run_dir)
    for path in checkpoints.saved():
        state = load_checkpoint(path, SEARCH_KIND)
        del state["settings"], state["class_names"]
        checkpoints.save(state, state["epoch"], state["step"])


def test_an_edited_configuration_is_noticed(run):
    document = yaml.safe_load((run / "config.yaml").read_text())
    edited = {"seed": 9, "target_lat": document["target_lat"] * 1.01, "w_mom": 0.5}
    for name, value in edited.items():
        (run / "config.yaml").write_text(yaml.safe_dump({**document, name: value}))
        with pytest.raises(InputError, match=rf"config\.yaml contains {name} {value}.*when it was saved"):
            search(SearchConfig(resume=str(run)), QUIET)
    as_an_earlier_version_saved_it(run)
    for name in ("target_lat", "w_mom"):
        (run / "config.yaml").write_text(yaml.safe_dump({**document, name: edited[name]}))
        with pytest.raises(InputError, match=r"cannot be resumed: its (target|schedule) was"):
            search(SearchConfig(resume=str(run)), QUIET)


def cut_and_resumed(run_dir, lines):
    """Resume a run of whose configuration only the first lines are left (None: not even the file)."""
    config = run_dir / "config.yaml"
    if lines is None:
        config.unlink()
    else:
        config.write_text("".join(config.read_text().splitlines(keepends=True)[:lines]))
    search(SearchConfig(resume=str(run_dir)), QUIET)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was interrupted in its second epoch; to be copied."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(17)))
        with pytest.raises(Interrupted):
            search(small_config(folder, "run"), QUIET)
    return folder / "run"


@pytest.mark.parametrize("lines", [None, 0, 1, 12])
def test_what_a_cut_configuration_lacks_comes_from_the_checkpoint(tmp_path, interrupted, uninterrupted, lines):
    shutil.copytree(interrupted, tmp_path / "run")
    whole = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    cut_and_resumed(tmp_path / "run", lines)
    assert_same(final_state(tmp_path / "run"), uninterrupted)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == {**whole, "run_dir": None}


def test_a_configuration_that_is_no_yaml_is_restored(run, uninterrupted):
    (run / "config.yaml").write_bytes(b"seed: [4\x00")
    cut_and_resumed(run, 1)
    assert_same(final_state(run), uninterrupted)


def test_a_checkpoint_of_an_earlier_version_goes_on(run, uninterrupted):
    as_an_earlier_version_saved_it(run)
    search(SearchConfig(resume=str(run)), QUIET)
    assert_same(final_state(run), uninterrupted)
    with pytest.raises(InputError, match="contains no configuration"):
        cut_and_resumed(run, 0)


def test_resuming_from_another_folder(run, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = search(SearchConfig(resume="../copy/run"), QUIET)
    assert result.summary["seed"] == 4


def test_two_runs_within_a_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tfnas.runs.run_directory.time.strftime", lambda _: "20260131-120000")
    configs = small_config(tmp_path, "unused", save=str(tmp_path / "runs"), note="two")
    config = SearchConfig(**{**vars(configs), "run_dir": None})
    names = [RunDirectory.create(*run_path("search", config), config, QUIET).path.name for _ in range(2)]
    assert names == ["search-two-20260131-120000", "search-two-20260131-120000-2"]


def test_epoch_scalars_survive_a_resumption_at_an_epochs_end(run):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    search(SearchConfig(resume=str(run)), QUIET)
    events = accumulators.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("epoch/weight_loss")) == 3


def test_a_finished_search_rehearses_no_step(run, uninterrupted, monkeypatch):
    monkeypatch.setattr("tfnas.searching.differentiable.differentiable_search.forecast", None)  # calling it would fail
    search(SearchConfig(resume=str(run)), QUIET)
    assert_same(final_state(run), uninterrupted)
    assert "time      about" not in (run / "log.txt").read_text().partition("epochs of this run are done")[2]


def test_two_processes_cannot_work_in_one_directory(run):
    with RunDirectory(run, QUIET).locked(), pytest.raises(InputError, match="another process is using"):
        search(SearchConfig(resume=str(run)), QUIET)


def test_other_images_are_refused_and_leave_the_configuration(run, tmp_path, monkeypatch):
    before = (run / "config.yaml").read_text()
    monkeypatch.setattr("tfnas.data.opened_data.ImageData.fingerprint", "other")
    with pytest.raises(InputError, match="its set of images was"):
        search(SearchConfig(resume=str(run), w_lr=0.02), QUIET)
    assert (run / "config.yaml").read_text() == before


def test_what_a_killed_save_left_is_removed(run):
    (run / "checkpoints" / ".search-0001-000003.pt.abc").write_bytes(b"half")
    search(SearchConfig(resume=str(run)), QUIET)
    assert not list((run / "checkpoints").glob(".*"))


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    config = small_config(tmp_path, "run")
    real = ElasticSGD.step

    def overflowing(optimizer):
        real(optimizer)
        optimizer.param_groups[0]["params"][0].data.fill_(float("inf"))

    monkeypatch.setattr(ElasticSGD, "step", overflowing)
    with pytest.raises(RunFailed, match="no longer finite"):
        search(config, QUIET)
    state, _, _ = search_checkpoints(tmp_path / "run").load_latest()
    assert state["step"] == 0 and all(torch.isfinite(value).all() for value in state["supernet"].values())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_saves_with_workers_too(tmp_path, number, status):
    config = small_config(tmp_path, "run", workers=2, save_minutes=60.0, epochs=40)
    flags = [f"--{name}={value}" for name, value in vars(config).items() if value not in (None, False, "")]
    command = [sys.executable, "-m", "tfnas", "search", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while _newest(tmp_path / "run") is None or _newest(tmp_path / "run").name < "search-0002":
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    # a worker that is only just starting dies of the signal: then the newest checkpoint is what remains
    assert ("the state is saved" in said or "the last saved state is intact" in said) and "--resume" in said
    assert not search_checkpoints(tmp_path / "run").load_latest()[2]


def test_settings_of_a_resumed_run_stay(run):
    with pytest.raises(InputError, match=r"--target_lat 3.* differs from the run's own"):
        search(SearchConfig(resume=str(run), target_lat=3.0), QUIET)


def test_occupied_directory_is_refused(run):
    with pytest.raises(InputError, match=r"not empty.*--resume"):
        search(small_config(run.parent, "run"), QUIET)


def test_file_in_the_directorys_place(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="cannot make the run directory"):
        search(small_config(tmp_path, "run"), QUIET)


def test_other_space_is_refused(run):
    space = run.parent / "tiny.yaml"
    space.write_text(space.read_text().replace("- k3_e3_se\n", ""))
    with pytest.raises(InputError, match="its space was"):
        search(SearchConfig(resume=str(run)), QUIET)


def test_foreign_objects_in_a_checkpoint_are_refused(tmp_path):
    torch.save({"format": "tfnas-search-checkpoint", "payload": random.Random(1)}, tmp_path / "search-0001-000000.pt")
    with pytest.raises(InputError, match="refused because loading them could run code"):
        load_checkpoint(tmp_path / "search-0001-000000.pt", SEARCH_KIND)


def test_other_table_is_refused(run):
    table = run.parent / "table.json"
    table.write_text(table.read_text().replace("Made-up Processor", "Another Processor"))
    with pytest.raises(InputError, match="its table was"):
        search(SearchConfig(resume=str(run)), QUIET)


def test_a_folder_called_like_a_built_in_space_does_not_replace_it(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    config = prepare(SearchConfig(target_lat=15, device="cpu")).effective()
    assert config.space == "digits"
