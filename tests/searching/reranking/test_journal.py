"""The journal: what was found is not computed again, whatever happened in between."""

from __future__ import annotations

import json
import signal

import pytest
from made_tasks import CountedTask, MadeTask
from rich.console import Console

from tfnas.core.errors import InputError, Interrupted, RunFailed
from tfnas.runs.endings import Interruption
from tfnas.runs.worker_pool import TaskResult, WorkerPool
from tfnas.searching.reranking.rerank_tasks import JOURNAL_FILE, ResultJournal, compute_tasks


def fill(folder, tasks, stop_after=None):
    """The numbers of the tasks, by a journal in the folder; Ctrl-C during the task of that text."""
    interruption = Interruption(Console(quiet=True))
    with ResultJournal.open(folder) as journal:
        if stop_after is not None:
            record = journal.record

            def recording(task, value, seconds):
                record(task, value, seconds)
                if task.architecture == stop_after:
                    interruption.signal = signal.SIGINT

            journal.record = recording
        return compute_tasks(tasks, WorkerPool(), journal, interruption, "counting")


def counted(folder, texts, **settings):
    return [CountedTask(text, log=str(folder / "computed.txt"), **settings) for text in texts]


def computed(folder):
    path = folder / "computed.txt"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


def test_numbers_come_in_the_order_of_the_tasks(tmp_path):
    assert fill(tmp_path, [MadeTask("abc"), MadeTask("a"), MadeTask("ab", factor=2.0)]) == [3.0, 1.0, 4.0]
    assert fill(tmp_path, []) == []


def test_nothing_is_computed_twice(tmp_path):
    assert fill(tmp_path, counted(tmp_path, ["a", "bb"])) == [1, 2]
    assert fill(tmp_path, counted(tmp_path, ["bb", "ccc", "a"])) == [2, 3, 1]
    assert computed(tmp_path) == ["a", "bb", "ccc"]


def test_other_settings_and_measures_are_other_numbers(tmp_path):
    fill(tmp_path, counted(tmp_path, ["a"]))
    assert fill(tmp_path, counted(tmp_path, ["a"], factor=3.0)) == [3]
    assert fill(tmp_path, counted(tmp_path, ["a"], measure="other")) == [1]
    assert fill(tmp_path, counted(tmp_path, ["a"])) == [1]  # the first is still known
    assert computed(tmp_path) == ["a", "a", "a"]


def test_an_interruption_keeps_what_was_found(tmp_path):
    tasks = counted(tmp_path, ["a", "bb", "ccc", "dddd"])
    with pytest.raises(Interrupted, match="all results so far are saved") as caught:
        fill(tmp_path, tasks, stop_after="bb")
    assert caught.value.exit_status == 130
    assert computed(tmp_path) == ["a", "bb"]
    assert fill(tmp_path, tasks) == [1, 2, 3, 4]
    assert computed(tmp_path) == ["a", "bb", "ccc", "dddd"]


def test_a_process_that_dies_of_the_same_interruption_is_no_failure(tmp_path, monkeypatch):
    interruption = Interruption(Console(quiet=True))

    def outcomes(_crew, _tasks):
        yield TaskResult(0, 1.0, 0.0)
        raise RunFailed("a process failed while computing")

    monkeypatch.setattr(WorkerPool, "results", outcomes)
    with ResultJournal.open(tmp_path) as journal:
        with pytest.raises(RunFailed, match="a process failed"):
            compute_tasks([MadeTask("a"), MadeTask("bb")], WorkerPool(), journal, interruption, "counting")
        record = journal.record

        def interrupted_meanwhile(task, value, seconds):
            record(task, value, seconds)
            interruption.signal = signal.SIGINT

        journal.record = interrupted_meanwhile
        interruption.raise_if_asked = once_later(interruption.raise_if_asked)
        with pytest.raises(Interrupted, match="all results so far are saved"):
            compute_tasks([MadeTask("ccc"), MadeTask("bb")], WorkerPool(), journal, interruption, "counting")


def once_later(raise_if_asked):
    """The signal comes between the first number and the second."""
    calls = []
    return lambda words: raise_if_asked(words) if calls or calls.append(words) else None


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_was_cut_off_is_computed_again(tmp_path, cut):
    tasks = counted(tmp_path, ["a", "bb"])
    fill(tmp_path, tasks)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    assert fill(tmp_path, tasks) == [1, 2]
    assert computed(tmp_path) == ["a", "bb", "bb"]
    assert len(path.read_text().splitlines()) == 2  # the half line is gone, and its number stands in a whole one


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        "[]",
        "{}",
        '{"measure": "length", "architecture": "a", "settings": {}, "value": "1"}',
        '{"measure": "length", "architecture": "a", "settings": {}, "value": true}',
        '{"measure": "length", "architecture": "a", "settings": {}, "value": NaN}',
    ],
)
def test_a_damaged_journal_is_named(tmp_path, line):
    fill(tmp_path, [MadeTask("a")])
    with (tmp_path / JOURNAL_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=f"{JOURNAL_FILE}:2 is not a re-ranking journal: remove the file"):
        fill(tmp_path, [MadeTask("a")])


def test_a_line_says_what_it_is_of(tmp_path):
    fill(tmp_path, [MadeTask("abc", factor=0.5)])
    entry = json.loads((tmp_path / JOURNAL_FILE).read_text())
    assert entry.pop("seconds") >= 0
    assert entry == {"measure": "length", "architecture": "abc", "settings": {"factor": 0.5}, "value": 1.5}


def test_trouble_names_the_task_and_keeps_the_rest(tmp_path):
    for text, kind, words in (
        ("refused", InputError, "length of refused: this one cannot be had"),
        ("failed", RunFailed, "length of failed: this one broke"),
        ("infinite", RunFailed, "length of infinite: it is inf"),
    ):
        folder = tmp_path / text
        folder.mkdir()
        with pytest.raises(kind, match=words):
            fill(folder, counted(folder, ["a", text, "b"]))
        assert fill(folder, counted(folder, ["a"])) == [1]
        assert computed(folder) == ["a", text] and "infinite" not in (folder / JOURNAL_FILE).read_text()


def test_a_folder_that_is_gone_is_a_failed_run(tmp_path):
    with pytest.raises(RunFailed, match=r"cannot write .*; choose another path"), ResultJournal.open(tmp_path / "none"):
        pass
