"""Joining processes: what the environment must say, and which device each takes."""

import pytest
import torch

from tfnas.core.errors import InputError, RunFailed, TfnasError
from tfnas.runs.distributed import DistributedContext, distributed_context
from tfnas.runs.endings import report_once


def test_alone_without_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed_context("cpu", None, 60.0) as processes:
        assert (processes.rank, processes.world_size, processes.is_rank_zero) == (0, 1, True)
        assert processes.all_reduce_sum([1.5, 2.0]) == [1.5, 2.0]
        assert processes.broadcast_bytes(b"x") == b"x"


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        ({"WORLD_SIZE": "2"}, "cpu", "not RANK"),
        ({"WORLD_SIZE": "two"}, "cpu", "WORLD_SIZE must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "cpu", "not LOCAL_RANK"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, "cuda:0", "names one GPU for several processes"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "99"}, "cuda", "cuda:99 is not there"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
            "cpu",
            "RANK to 2, but WORLD_SIZE to 2: ranks count from 0",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "cpu", "not MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}, "cpu", "not MASTER_PORT"),
    ],
)
def test_environments_that_cannot_be(monkeypatch, environment, device, message):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), distributed_context(device, None, 60.0):
        pass


def test_a_device_that_only_another_process_lacks_is_told_by_it(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as refused, distributed_context("cuda", None, 60.0):
        pass
    assert refused.value.process == 1


def test_processes_that_cannot_be_reached(monkeypatch):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"}  # there is no such port
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", **address}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(RunFailed, match=r"cannot join the other processes of this run at 127\.0\.0\.1:99999"),
        distributed_context("cpu", None, 5.0),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "here", "launcher"),
    [
        (1, None, None),
        (2, None, "torchrun --nproc_per_node=2"),
        (2, "2", "torchrun --nproc_per_node=2"),
        (16, "8", "torchrun --nnodes=2 --nproc_per_node=8"),
    ],
)
def test_what_starts_the_processes_again(monkeypatch, number, here, launcher):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert DistributedContext(0, number, torch.device("cpu")).launcher == launcher


def test_of_processes_that_share_a_store_one_tells():
    store = torch.distributed.HashStore()
    several = [DistributedContext(rank, 3, torch.device("cpu"), store) for rank in range(3)]
    assert [processes.may_report() for processes in several] == [True, False, False]
    assert [processes.may_report() for processes in several] == [True, False, False]  # asked again
    assert DistributedContext(0, 1, torch.device("cpu")).may_report()


def test_an_error_that_all_meet_is_told_once():
    """A loss that is not finite is so in all of them."""
    store = torch.distributed.HashStore()
    raised = []
    for rank in (1, 0):
        with pytest.raises(TfnasError) as caught, report_once(DistributedContext(rank, 2, torch.device("cpu"), store)):
            raise RunFailed("not finite")
        raised.append(caught.value)
    assert [str(error) for error in raised] == ["not finite", ""]
    assert raised[0].process == 1
    assert [error.exit_status for error in raised] == [1, 1]
