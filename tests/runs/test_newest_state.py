"""The state that a run goes on from: read by the first process, in all of them, and so is what prevents it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tfnas.core.errors import InputError, RunFailed
from tfnas.runs.distributed import DistributedContext, ReportedElsewhere
from tfnas.runs.run_directory import Checkpoints
from tfnas.runs.session import newest_state


class Meeting:
    """Where two threads exchange what they hold; one that the other does not come to fails."""

    def __init__(self):
        self.held, self.barrier = [None, None], threading.Barrier(2, timeout=20)

    def exchanged(self, rank, value):
        self.held[rank] = value
        self.barrier.wait()
        both = list(self.held)
        self.barrier.wait()
        return both


@dataclass(frozen=True)
class InAThread(DistributedContext):
    """One of two processes, played by a thread."""

    meeting: Meeting = field(kw_only=True)

    def all_reduce_sum(self, values):
        return [sum(pair) for pair in zip(*self.meeting.exchanged(self.rank, values), strict=True)]

    def broadcast_bytes(self, data):
        return self.meeting.exchanged(self.rank, data)[0]


def found_by_both(run_dir):
    """What the two found or raised, and what was said."""
    meeting, said = Meeting(), []

    def found_by(rank):
        checkpoints = Checkpoints(run_dir, "search")
        try:
            return newest_state(checkpoints, InAThread(rank, 2, torch.device("cpu"), meeting=meeting), said.append)
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        return [*threads.map(found_by, range(2))], said


@pytest.fixture
def run_dir(tmp_path):
    """A run with two checkpoints."""
    checkpoints = Checkpoints(tmp_path, "search")
    checkpoints.prepare()
    for step in (3, 4):
        checkpoints.save({"value": torch.arange(step)}, 1, step)
    return tmp_path


def test_both_have_the_newest_readable_state(run_dir):
    newest, before = Checkpoints(run_dir, "search").saved()
    newest.write_bytes(newest.read_bytes()[:-100])
    (first, second), said = found_by_both(run_dir)
    assert (first[1], second[1]) == (before, None)
    assert first[0]["value"].tolist() == second[0]["value"].tolist() == [0, 1, 2]
    assert len(said) == 1 and newest.name in said[0]
    assert Checkpoints(run_dir, "search").saved() == [before]


def test_both_are_at_the_beginning_where_nothing_was_saved(tmp_path):
    assert found_by_both(tmp_path) == ([None, None], [])


def test_both_end_where_nothing_can_be_read(run_dir):
    for path in Checkpoints(run_dir, "search").saved():
        path.write_bytes(b"damaged")
    (first, second), _ = found_by_both(run_dir)
    assert isinstance(first, InputError) and "contains no readable checkpoint" in str(first)
    assert isinstance(second, ReportedElsewhere) and second.exit_status == 2


@pytest.mark.parametrize("method", ["rename", "read_bytes", "mkdir"])
def test_both_end_where_the_system_refuses(run_dir, monkeypatch, method):
    newest = Checkpoints(run_dir, "search").saved()[0]
    newest.write_bytes(newest.read_bytes()[:-100])  # so that it is set aside

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, method, refused)
    (first, second), _ = found_by_both(run_dir)
    assert isinstance(first, RunFailed) and "cannot read the checkpoints in" in str(first)
    assert "Permission denied" in str(first)
    assert isinstance(second, ReportedElsewhere) and second.exit_status == 1
