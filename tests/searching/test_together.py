"""Several processes search as one: the gradient of the mean loss, the same architecture, and no one is waited for."""

from __future__ import annotations

import copy
import json
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from made_learners import random_batch, random_learner
from real_process import run_together, start_together
from rich.console import Console
from small_search import small_config
from test_resume import _InterruptAt, assert_same, final_state
from torch.nn import functional

from tfnas.core.errors import InputError, Interrupted, RunFailed, TfnasError
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.runs import session
from tfnas.runs.distributed import DistributedContext, distributed_context
from tfnas.runs.run_directory import SEARCH_KIND, RunDirectory, load_checkpoint, search_checkpoints
from tfnas.searching.differentiable import differentiable_search, search_setup
from tfnas.searching.differentiable.differentiable_search import architecture_step, search, weight_step
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import WholeBatches, prepare, shares
from tfnas.searching.differentiable.supernet_learner import architecture_loss, check_agreement, fingerprints
from tfnas.supernet.supernet import Path as Route

PATHS = (Route((0, 1, 0)), Route((1, 0, 0)))
SETTINGS = {"grad_clip": 1e9, "lambda_lat": 0.7}  # gradients that clipping leaves as they are
SIZE = 7  # images: the first process takes four of them, the other three
QUIET = Console(quiet=True)


def seeded():
    return torch.Generator().manual_seed(4)


def gradients_of(module):
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def gradients_at_the_update(learner):
    """A dictionary that a step of either optimizer fills with the gradients it begins with."""
    found = {}
    for optimizer, module in (
        (learner.weight_optimizer, learner.supernet),
        (learner.architecture_optimizer, learner.parameters),
    ):
        optimizer.register_step_pre_hook(lambda *_, module=module: found.update(gradients_of(module)))
    return found


def fail_in_the_second(rank):
    if rank == 1:
        raise InputError("its images are not there")


def one_step_each(folder):
    """What a process does: a weight step and an architecture step on its share; the gradients go into a file.

    It has joined the other one before, and the second process has told something then.
    """
    torch.set_default_dtype(torch.float64)
    with distributed_context("cpu", None, 60.0) as processes:
        assert processes.rank == 0 or processes.may_report()
        assert processes.all_reduce_sum([processes.rank + 1.0]) == [3.0]
    with distributed_context("cpu", None, 60.0) as processes:
        images, labels = random_batch(size=SIZE)
        mine = slice(processes.rank, None, processes.world_size)
        found = {"tells": processes.rank == 0 and processes.may_report()}
        for name, step in (
            ("weights", lambda learner: weight_step(learner, images[mine], labels[mine], PATHS)),
            ("architecture", lambda learner: architecture_step(learner, images[mine], labels[mine], 3.0, seeded())),
        ):
            learner = random_learner(**SETTINGS)
            learner.processes = processes
            gradients = gradients_at_the_update(learner)
            report = step(learner)
            found[name] = {
                "report": list(report),
                "gradients": gradients,
                "after": {**learner.supernet.state_dict(), **learner.parameters.state_dict()},
            }
        try:
            processes.barrier(lambda: fail_in_the_second(processes.rank))
        except TfnasError as error:
            found["refused"] = [type(error).__name__, error.process, error.exit_status, str(error)]
        torch.save(found, Path(folder) / f"{processes.rank}.pt")


def test_two_processes_have_the_gradient_of_the_mean_loss(two_together, float64):
    found = [torch.load(two_together.parent / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [process.pop("tells") for process in found] == [True, False]
    refused = [process.pop("refused") for process in found]
    assert refused == [["ReportedElsewhere", None, 2, ""], ["InputError", 1, 2, "its images are not there"]]
    assert_same(*found)
    images, labels = random_batch(size=SIZE)
    shares = [(images[rank::2], labels[rank::2]) for rank in (0, 1)]

    learner = random_learner(**SETTINGS)
    depths = [betas.detach().softmax(0) for betas in learner.parameters.betas]
    loss, correct = torch.zeros(()), 0.0
    for some_images, some_labels in shares:  # batch statistics are those of a share
        for path in PATHS:
            logits = learner.supernet(some_images, path, depths)
            loss = loss + functional.cross_entropy(logits, some_labels, reduction="sum") / SIZE
            correct += (logits.argmax(1) == some_labels).sum().item() / len(PATHS)
    loss.backward()
    compare(gradients_of(learner.supernet), found[0]["weights"]["gradients"])
    assert found[0]["weights"]["report"] == pytest.approx([loss.item() / len(PATHS), correct, SIZE], rel=1e-12)

    learner = random_learner(**SETTINGS)
    losses, reports = zip(*(architecture_loss(learner, *share, 3.0, seeded()) for share in shares), strict=True)
    parts = [len(share[1]) / SIZE for share in shares]
    sum(part * loss for part, loss in zip(parts, losses, strict=True)).backward()
    compare(gradients_of(learner.parameters), found[0]["architecture"]["gradients"])
    means = [
        sum(part * value.item() for part, value in zip(parts, values, strict=True))
        for values in zip(*reports, strict=True)
    ]
    assert found[0]["architecture"]["report"] == pytest.approx(means, rel=1e-12)


def compare(expected, found):
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


# ---- whole runs -------------------------------------------------------------------------------------------------


def in_double(images, batches, **how):
    """What the batches hold, in double precision."""
    return ((some_images.double(), labels) for some_images, labels in loader(images, batches, **how))


def search_in_double(settings):
    """What a process does: its part of a search."""
    torch.set_default_dtype(torch.float64)
    search_setup.loader = in_double
    search(SearchConfig(**settings), QUIET)


def steps_and_search(folder, settings):
    """What the processes of `two_together` do, which take seconds to start."""
    one_step_each(folder)
    search_in_double(settings)


def search_twice(*both):
    """One after the other, in one program."""
    for settings in both:
        search_in_double(settings)


def search_on_a_full_disk(settings):
    """The same, where the log takes three lines of the first process and then no more."""
    real, lines = RunDirectory._log, []

    def log(run, message):
        lines.append(message)
        if "epoch" in message and len(lines) > 3:
            raise RunFailed("cannot write the log: No space left on device")
        real(run, message)

    RunDirectory._log = log
    search_in_double(settings)


def small_settings(folder, name, **changes):
    """Of a short run; its batches cannot be shared evenly, and the last ones are smaller."""
    return vars(small_config(folder, name, **{"epochs": 2, "batch_size": 359, **changes}))


def whole_state(run_dir):
    """What the last checkpoint holds of the result."""
    return load_checkpoint(search_checkpoints(Path(run_dir)).saved()[0], SEARCH_KIND)


@pytest.fixture(scope="module")
def two_together(tmp_path_factory):
    """A run of two processes, left alone; beside it is what `one_step_each` has written before."""
    folder = tmp_path_factory.mktemp("two")
    run_together(steps_and_search, str(folder), small_settings(folder, "run"), folder=folder)
    return folder / "run"


def test_two_processes_search_as_one_that_halves_its_batches(tmp_path, two_together, float64, monkeypatch):
    """One process that computes the mean of the losses of both halves takes the same way."""
    weight_loss = differentiable_search.weight_loss

    def halves(images, labels):
        return [(images[rank::2], labels[rank::2], len(labels[rank::2]) / len(labels)) for rank in (0, 1)]

    def weight_loss_of_both(learner, images, labels, paths):
        found = [(*weight_loss(learner, *half, paths), part) for *half, part in halves(images, labels)]
        return sum(part * loss for loss, _, part in found), sum(correct for _, correct, _ in found)

    def architecture_loss_of_both(learner, images, labels, heat, noise):
        before, total, reports = noise.get_state(), 0.0, []
        for *half, part in halves(images, labels):
            noise.set_state(before)
            loss, report = architecture_loss(learner, *half, heat, noise)
            total, reports = total + part * loss, [*reports, [part * value for value in report]]
        return total, [sum(values) for values in zip(*reports, strict=True)]

    monkeypatch.setattr(differentiable_search, "weight_loss", weight_loss_of_both)
    monkeypatch.setattr(differentiable_search, "architecture_loss", architecture_loss_of_both)
    monkeypatch.setattr(search_setup, "loader", in_double)
    result = search(SearchConfig(**small_settings(tmp_path, "run")), QUIET)
    two = json.loads((two_together / "summary.json").read_text())
    assert (result.summary["processes"], two["processes"]) == (1, 2)
    for name in ("architecture", "table_ms", "top1", "supernet_top1", "class_names"):
        assert two[name] == result.summary[name]
    for entry, other in zip(result.summary["history"], two["history"], strict=True):
        assert other == pytest.approx(entry, rel=1e-9)
    states = [whole_state(run_dir) for run_dir in (result.run_dir, two_together)]
    for part in ("supernet", "parameters"):
        for name, value in states[0][part].items():
            torch.testing.assert_close(states[1][part][name], value, rtol=1e-8, atol=1e-10)
    assert_same(*(state["active"] for state in states))


def test_the_first_process_alone_writes(two_together):
    lines = (two_together / "log.txt").read_text().splitlines()
    for words in ("2 processes on cpu", "epoch 2/2", "time      about", "Search result"):
        assert sum(words in line for line in lines) == 1, words
    assert len(list((two_together / "tensorboard").iterdir())) == 1
    assert [path.name for path in two_together.parent.glob("said-*") if path.read_text()] == []


def wait_for_checkpoints(run_dir, number):
    deadline = time.monotonic() + 120
    while len(search_checkpoints(run_dir).saved()) < number and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_both_go_on_bit_for_bit(tmp_path, two_together, killed):
    settings = small_settings(tmp_path, "killed")
    processes = start_together(search_in_double, settings, folder=tmp_path)
    run_dir = Path(settings["run_dir"])
    wait_for_checkpoints(run_dir, 2)
    processes[killed].kill()
    assert processes[1 - killed].end(60) == 1
    said = processes[1 - killed].said()
    assert "another process of this run has exited" in said
    assert f"torchrun --nproc_per_node=2 train_search.py --resume {run_dir}" in said
    run_together(search_in_double, {"resume": str(run_dir)}, folder=tmp_path)
    assert_same(final_state(run_dir), final_state(two_together))


@pytest.mark.slow
@pytest.mark.parametrize("launcher_keeps_the_store", [True, False])
def test_two_searches_in_one_program(tmp_path, two_together, launcher_keeps_the_store):
    both = [small_settings(tmp_path, name) for name in ("first", "second")]
    run_together(search_twice, *both, folder=tmp_path, launcher_keeps_the_store=launcher_keeps_the_store)
    for settings in both:
        assert_same(final_state(settings["run_dir"]), final_state(two_together))


@pytest.mark.slow
def test_of_two_that_are_left_one_tells(tmp_path):
    settings = small_settings(tmp_path, "killed", epochs=200)
    processes = start_together(search_in_double, settings, folder=tmp_path, number=3)
    wait_for_checkpoints(Path(settings["run_dir"]), 2)
    processes.pop().kill()
    assert [process.end(60) for process in processes] == [1, 1]
    assert sorted("another process of this run has exited" in process.said() for process in processes) == [False, True]
    assert sorted("ReportedElsewhere" in process.said() for process in processes) == [False, True]


@pytest.mark.slow
def test_what_the_first_process_has_told_no_other_tells(tmp_path):
    """A full disk, which the first process alone meets."""
    processes = start_together(search_on_a_full_disk, small_settings(tmp_path, "run"), folder=tmp_path)
    assert [process.end(120) for process in processes] == [1, 1]
    assert "No space left" in processes[0].said() and "--resume" in processes[0].said()
    assert "ReportedElsewhere" in processes[1].said() and "has exited" not in processes[1].said()


@pytest.mark.slow
def test_all_killed_at_once_again_and_again_go_on_bit_for_bit(tmp_path, two_together):
    settings = small_settings(tmp_path, "killed")
    run_dir = Path(settings["run_dir"])
    for _ in range(3):
        seen = search_checkpoints(run_dir).saved()[:1]
        processes = start_together(search_in_double, settings, folder=tmp_path)
        while search_checkpoints(run_dir).saved()[:1] == seen:
            time.sleep(0.02)
        for process in processes:
            process.send(signal.SIGKILL)
        assert [process.end(60) for process in processes] == [-signal.SIGKILL] * 2
        settings = {"resume": str(run_dir)}
    run_together(search_in_double, settings, folder=tmp_path)
    assert_same(final_state(run_dir), final_state(two_together))


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_ends_both(tmp_path):
    settings = small_settings(tmp_path, "run", epochs=200, save_minutes=60.0)
    processes = start_together(search_in_double, settings, folder=tmp_path)
    wait_for_checkpoints(Path(settings["run_dir"]), 2)
    processes[1].send(signal.SIGTERM)
    assert [process.end(60) for process in processes] == [1, 1]  # these have no command line's exit status
    assert all("the state is saved" in process.said() for process in processes)
    assert "another process of this run was terminated" in processes[0].said()


@pytest.mark.slow
def test_two_go_on_where_one_had_trained_on_the_image_that_is_too_few_for_two(tmp_path, float64, monkeypatch):
    settings = small_settings(tmp_path, "run", batch_size=154)  # 1079 = 7 * 154 + 1
    monkeypatch.setattr(search_setup, "loader", in_double)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(7)))
        search(SearchConfig(**settings), QUIET)
    assert whole_state(settings["run_dir"])["step"] == 8
    run_together(search_in_double, {"resume": settings["run_dir"]}, folder=tmp_path)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["processes"] == 2


# ---- one process at a time --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretended(DistributedContext):
    """A process that hears from the first one what it is told to."""

    said: bytes = b""

    def broadcast_bytes(self, data):
        return self.said

    def barrier(self, work):
        return work()


def test_learners_that_differ_are_refused():
    learner, device = random_learner(), torch.device("cpu")
    said = json.dumps(fingerprints(learner)).encode()
    check_agreement(learner, Pretended(1, 2, device, said=said))
    for change, words in (
        (lambda one: one.parameters.log_alphas.data[0, 0].add_(1e-6), "operation probabilities"),
        (lambda one: one.parameters.betas[1].data[0].add_(1e-6), "depth probabilities"),
        (lambda one: one.supernet.block_operations(0)[0].set_active(torch.arange(3)), "widths"),
        (lambda one: one.supernet.classifier.linear.weight.data[0, 0].add_(1e-6), "weights"),
    ):
        other = copy.deepcopy(learner)
        change(other)
        with pytest.raises(RunFailed, match=rf"^its {words}.* differ from those of rank 0"):
            check_agreement(other, Pretended(1, 2, device, said=said))


@pytest.mark.parametrize(("batch_size", "number"), [(149, 2), (96, 4), (154, 2), (7, 4)])
def test_shares_make_up_the_whole(tmp_path, batch_size, number):
    """Every image of an epoch is in one share, but for a last batch that is too small; judged is every one once."""
    ranks = [DistributedContext(rank, number, torch.device("cpu")) for rank in range(number)]
    config = small_config(tmp_path, "run", batch_size=batch_size)
    setups = [prepare(config, rank) for rank in ranks]
    images, held_out = setups[0].data.weights, setups[0].data.architecture
    parts = [list(shares(setup, images, turn=1)) for setup in setups]
    whole = list(shares(prepare(config), images, turn=1))
    assert [len(part) for part in parts] == [setups[0].steps_per_epoch] * number
    assert len(whole) - setups[0].steps_per_epoch == (0 < len(images) % batch_size < number)
    assert not list(shares(setups[0], images, turn=1, first=len(whole)))
    for batch, some in zip(whole, zip(*parts, strict=True), strict=False):
        assert {draw for part in some for draw in part} == set(batch)
        sizes = [len(part) for part in some]
        assert min(sizes) > 0 and max(sizes) - min(sizes) <= 1 and sum(sizes) == len(batch)
    divided = [WholeBatches(len(held_out), batch_size, rank.share) for rank in ranks]
    alone = list(EpochBatches(len(held_out), batch_size=batch_size, epoch=0, seed=None))
    assert [len(batches) for batches in divided] == [len(list(batches)) for batches in divided]
    assert [list(divided[turn % number])[turn // number] for turn in range(len(alone))] == alone
    assert sum(map(len, divided)) == len(alone)


def test_a_batch_too_small_for_the_processes(tmp_path):
    many = DistributedContext(0, 97, torch.device("cpu"))
    with pytest.raises(InputError, match="--batch_size 96 is the global batch size of 97 processes: use a larger one"):
        prepare(small_config(tmp_path, "run"), many)
    with pytest.raises(InputError, match="the weights part has 1079 images, and 5000 processes share them"):
        prepare(small_config(tmp_path, "run", batch_size=9999), DistributedContext(0, 5000, torch.device("cpu")))
