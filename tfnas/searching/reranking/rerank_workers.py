"""Computing tasks side by side through joblib: in processes of this machine, or on a cluster of dask's or ray's.

Every process computes one task at a time on one thread, so that a number does not depend on how many there are.
A cluster's workers need this package, and get pickled tasks: use only a cluster that you trust, as its users must you.

The numbers of tasks: those in the journal from there, the others computed, and kept one by one as they come.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib  # type: ignore[import-untyped]

from tfnas.core.errors import InputError, RunFailed, TfnasError
from tfnas.runs.run_directory import Interruption
from tfnas.searching.reranking.rerank_journal import ResultJournal
from tfnas.searching.reranking.rerank_tasks import Task
from tfnas.utils.progress import counting

if TYPE_CHECKING:
    from tfnas.searching.reranking.rerank_tasks import Task

LOCAL = "loky"
_CHUNK = 4  # tasks per process at a time, where a backend gives results back only all at once
_SECONDS_TO_ANSWER = 10.0
_one_at_a_time = threading.Lock()  # dask's workers have several threads, but torch's random state is one


class TaskResult(NamedTuple):
    """What came of the task at place `number`: a value, or the problem it met with the exit status that this has."""

    number: int
    value: float
    seconds: float
    problem: str | None = None
    status: int = 0


@dataclass(frozen=True)
class WorkerPool:
    """Who computes: `jobs` processes here, or the cluster at an address (None: as the backend finds one)."""

    backend: str = LOCAL
    jobs: int = 1
    cluster: str | None = None

    def outcomes(self, tasks: Sequence[Task]) -> Generator[TaskResult, None, None]:
        """What comes of the tasks, in whatever order they end.

        Raises InputError where the backend is not installed or its cluster does not answer, and RunFailed when a
        process died.
        """
        if not tasks:
            return
        with _joined(self), _told(self):
            numbered = list(enumerate(tasks))
            jobs = self.jobs if self.backend == LOCAL else -1
            if self.backend == "ray":
                size = _CHUNK * max(1, joblib.effective_n_jobs(jobs))
                for start in range(0, len(numbered), size):
                    yield from _parallel(jobs, "list")(_calls(numbered[start : start + size]))
                return
            results = _parallel(jobs, "generator_unordered")(_calls(numbered))
            try:
                for outcome in results:  # noqa: UP028 - closing the other generator would warn of what is left undone
                    yield outcome
            except GeneratorExit:
                with suppress(_Left):
                    results.throw(_Left())
                raise


class _Left(Exception):
    """Nobody wants the results that are left."""


def _parallel(jobs: int, return_as: str) -> Any:
    return joblib.Parallel(n_jobs=jobs, return_as=return_as)


def _calls(numbered: Sequence[tuple[int, Task]]) -> Iterator[Any]:
    return (joblib.delayed(_outcome)(index, task, os.getpid()) for index, task in numbered)


def _outcome(index: int, task: Task, parent: int) -> TaskResult:
    """Compute one task; its problem comes back as text, since not every exception survives the way."""
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with _one_at_a_time, _one_thread():
        start = time.perf_counter()
        try:
            value = task.compute()
        except TfnasError as error:
            return TaskResult(index, 0.0, time.perf_counter() - start, str(error), error.exit_status)
        return TaskResult(index, value, time.perf_counter() - start)


def _one_thread() -> AbstractContextManager[None]:
    """Lets torch compute on one thread; it is not imported where it will begin with one anyway."""
    if "torch" not in sys.modules and os.environ.get("OMP_NUM_THREADS") == "1":
        return nullcontext()
    from tfnas.utils.torch_settings import torch_threads

    return torch_threads(1)


@contextmanager
def own_processes() -> Iterator[None]:
    """The processes that compute on this machine are kept from task to task during the body, and end with it.

    Left to themselves they stay for minutes, and the end of the program waits for them.
    """
    before = _local_executor()
    try:
        yield
    finally:
        executor = _local_executor()
        if executor is not None and executor is not before:
            executor.shutdown(wait=True, kill_workers=True)  # they hold nothing that is not written


def _local_executor() -> Any:
    """Joblib's processes on this machine, None where there are none now."""
    return joblib.externals.loky.reusable_executor._executor


@contextmanager
def _told(crew: WorkerPool) -> Iterator[None]:
    """What a backend raises, as one message."""
    try:
        yield
    except (TfnasError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        # each backend has classes of its own for a dead worker and a lost connection, and not all can be imported here
        module = type(error).__module__.partition(".")[0]
        if module not in ("joblib", "loky", "distributed", "dask", "ray", "concurrent") and not _is_lost(error):
            raise
        where = "a process" if crew.backend == LOCAL else f"the {crew.backend} cluster"
        raise RunFailed(
            f"{where} failed while computing ({type(error).__name__}: {' '.join(str(error).split())[:200]}); a process "
            "that is ended from outside has often run out of memory: use fewer --jobs"
        ) from error


def _is_lost(error: Exception) -> bool:
    return isinstance(error, TimeoutError | ConnectionError)


@contextmanager
def _joined(crew: WorkerPool) -> Iterator[None]:
    """The backend as joblib's own for the duration."""
    if crew.backend == LOCAL:
        with joblib.parallel_config(backend=LOCAL, n_jobs=crew.jobs, inner_max_num_threads=1):
            yield
    elif crew.backend == "dask":
        distributed = _module("distributed", "dask")
        with _dask_client(distributed, crew) as client, joblib.parallel_config(backend="dask", client=client):
            yield
    else:
        ray = _module("ray", "ray")
        _module("ray.util.joblib", "ray").register_ray()
        with _ray_session(ray, crew), joblib.parallel_config(backend="ray"):
            yield


@contextmanager
def _dask_client(distributed: ModuleType, crew: WorkerPool) -> Iterator[Any]:
    """A client of the cluster at the address, of the one that dask's own settings name, or of one of its own."""
    named = crew.cluster or _module("dask", "dask").config.get("scheduler-address", None)
    try:
        if named is None:
            client = distributed.Client(n_workers=crew.jobs, threads_per_worker=1, dashboard_address=None)
        else:
            client = distributed.Client(named)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--cluster {named}: no dask scheduler answers there ({error})") from error
    with client:
        yield client


@contextmanager
def _ray_session(ray: ModuleType, crew: WorkerPool) -> Iterator[None]:
    """The ray session there is, or one for the duration."""
    if ray.is_initialized():
        yield
        return
    address = crew.cluster or os.environ.get("RAY_ADDRESS")
    try:
        if address is None:
            local = {"num_cpus": crew.jobs, "include_dashboard": False}
        else:
            _knock(address)
            local = {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, ValueError, RuntimeError) as error:
        where = "ray does not start here" if address is None else f"--cluster {address}: no ray cluster answers there"
        raise InputError(f"{where} ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at host:port: ray itself would try for minutes and then end the process."""
    host, _, port = address.rpartition(":")
    if "://" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _module(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"--joblib_backend {extra} needs {name.partition('.')[0]}, which is not installed: "
            f"pip install 'tfnas[{extra}]'"
        ) from error


KEPT = "every number found so far is kept"
GO_ON = "The same command goes on with them"
STOPPING = f"stopping after the numbers at work, since {KEPT}; once more ends it at once"


def compute_tasks(
    tasks: Sequence[Task], crew: WorkerPool, journal: ResultJournal, interruption: Interruption, words: str
) -> list[float]:
    """The number of every task. `words` says what is computed, for the progress that is shown.

    Raises InputError or RunFailed naming the task that gave no number, and Interrupted; what was found is in the
    journal.
    """
    known = [journal.value(task) for task in tasks]
    missing = [index for index, value in enumerate(known) if value is None]
    with counting(interruption.console, words, len(tasks)) as on_done:
        on_done(len(tasks) - len(missing))
        outcomes = crew.outcomes([tasks[index] for index in missing])
        with closing(outcomes), _ended_together(interruption):
            for done, outcome in enumerate(outcomes, 1):
                index = missing[outcome.number]
                _check(tasks[index], outcome)
                journal.record(tasks[index], outcome.value, outcome.seconds)
                known[index] = outcome.value
                on_done(len(tasks) - len(missing) + done)
                interruption.raise_if_asked(f"{KEPT}. {GO_ON}")
    return [value for value in known if value is not None]


@contextmanager
def _ended_together(interruption: Interruption) -> Iterator[None]:
    """Ctrl-C in a terminal goes to all processes, and one that is still starting dies of it: that is no failure."""
    try:
        yield
    except RunFailed:
        interruption.raise_if_asked(f"{KEPT}. {GO_ON}")
        raise


def _check(task: Task, outcome: TaskResult) -> None:
    if outcome.problem is None and math.isfinite(outcome.value):
        return
    problem = outcome.problem or f"it is {outcome.value}"
    kind = InputError if outcome.status == InputError.exit_status else RunFailed
    raise kind(f"{task.measure} of {task.architecture}: {problem}")
