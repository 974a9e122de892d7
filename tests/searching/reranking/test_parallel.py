"""Side by side: in this process, in others, and on a dask cluster on this machine; the numbers are the same."""

from __future__ import annotations

import os
import sys

import joblib
import pytest
from made_tasks import MadeTask

from tfnas.core.errors import InputError, RunFailed
from tfnas.runs.worker_pool import TaskResult, WorkerPool, owned_processes

TEXTS = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"]


def values(outcomes):
    return [outcome.value for outcome in sorted(outcomes)]


def test_in_this_process():
    outcomes = list(WorkerPool().results([MadeTask(text) for text in [*TEXTS, "process"]]))
    assert values(outcomes) == [1, 2, 3, 4, 5, 6, 7, os.getpid()]
    assert all(outcome.problem is None and outcome.status == 0 for outcome in outcomes)
    assert list(WorkerPool().results([])) == []


def test_a_problem_comes_back_with_its_status():
    found = [outcome[3:] for outcome in WorkerPool().results([MadeTask("refused"), MadeTask("a"), MadeTask("failed")])]
    assert found == [("this one cannot be had", 2), (None, 0), ("this one broke", 1)]


def test_leaving_early_is_quiet():
    outcomes = WorkerPool().results([MadeTask(text) for text in TEXTS])
    assert isinstance(next(outcomes), TaskResult)
    outcomes.close()


def test_in_other_processes():
    outcomes = list(WorkerPool(jobs=2).results([MadeTask(text) for text in [*TEXTS, "process", "refused"]]))
    assert values(outcomes)[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert values(outcomes)[7] != os.getpid()
    assert sorted(outcomes)[8].status == 2


def test_processes_end_with_the_work(monkeypatch):
    """Left alone, they are waited for at the end of the program; those of others stay."""
    monkeypatch.setattr(joblib.externals.loky.reusable_executor, "_executor", None)
    with owned_processes():
        assert len(list(WorkerPool(jobs=2).results([MadeTask("process")]))) == 1
        processes = list(joblib.externals.loky.reusable_executor._executor._processes.values())
    assert processes and not any(process.is_alive() for process in processes)
    monkeypatch.setattr(joblib.externals.loky.reusable_executor, "_executor", "of somebody else")
    with owned_processes():
        pass
    monkeypatch.setattr(joblib.externals.loky.reusable_executor, "_executor", None)
    with owned_processes():
        pass


@pytest.mark.slow
def test_other_processes_left_early_and_one_that_dies():
    crew = WorkerPool(jobs=2)
    leaving = crew.results([MadeTask(text, seconds=0.01) for text in TEXTS])
    next(leaving)
    leaving.close()
    with pytest.raises(RunFailed, match=r"a process failed while computing .*fewer --jobs"):
        list(crew.results([MadeTask("dies"), MadeTask("a", seconds=0.1), MadeTask("b", seconds=0.1)]))


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_backend_that_is_not_installed_is_named(backend, monkeypatch):
    for name in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"--joblib_backend {backend} needs .* pip install 'tfnas\[{backend}\]'"):
        list(WorkerPool(backend).results([MadeTask("a")]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_dask_cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        crew = WorkerPool("dask", 1, cluster.scheduler_address)
        outcomes = list(crew.results([MadeTask(text) for text in [*TEXTS, "process", "refused"]]))
    assert values(outcomes)[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert values(outcomes)[7] != os.getpid()
    assert sorted(outcomes)[8].problem == "this one cannot be had"
