"""Worker processes: tasks computed through joblib, in processes of this machine or on a cluster of dask's or ray's.

Every process computes one task at a time on one thread, so that a number does not depend on how many there are.
A cluster's workers need this package, and get pickled tasks: use only a cluster that you trust, as its users must you.
This module does not import torch, with which a process would take seconds to start.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import joblib  # type: ignore[import-untyped]

from tfnas.core.errors import InputError, RunFailed, TfnasError

LOCAL = "loky"
_CHUNK = 4  # tasks per process at a time, where a backend gives results back only all at once
_SECONDS_TO_ANSWER = 10.0
_one_at_a_time = threading.Lock()  # dask's workers have several threads, but torch's random state is one


class Computation(Protocol):
    """What a process computes. It can be pickled, and so can what it returns."""

    def compute(self) -> Any:
        """The result. Raises TfnasError where there is none."""


class Task(Protocol):
    """One number of one candidate."""

    @property
    def measure(self) -> str:
        """What the number is called."""

    @property
    def architecture(self) -> str:
        """The text of the architecture it is of."""

    def settings(self) -> dict[str, Any]:
        """All else that decides the number, as plain data."""

    def compute(self) -> float:
        """The number. Raises TfnasError where there is none."""


class TaskResult(NamedTuple):
    """Result of the task at index `number`: a value, or the message and exit status of an error."""

    number: int
    value: Any
    seconds: float
    problem: str | None = None
    status: int = 0


@dataclass(frozen=True)
class WorkerPool:
    """`jobs` processes on this machine, or the cluster at an address (None: as the backend finds one)."""

    backend: str = LOCAL
    jobs: int = 1
    cluster: str | None = None
    connected: bool = False

    @contextmanager
    def connection(self) -> Iterator[WorkerPool]:
        """The pool, connected to its cluster for the duration: otherwise it connects for every `results`."""
        with _joblib_backend(self), _backend_errors(self):
            yield dataclasses.replace(self, connected=True)

    def results(self, tasks: Sequence[Computation]) -> Generator[TaskResult, None, None]:
        """Results of the tasks in the order of completion.

        Raises InputError where the backend is not installed or its cluster does not respond, and RunFailed when a
        process died.
        """
        if not tasks:
            return
        with nullcontext() if self.connected else _joblib_backend(self), _backend_errors(self):
            numbered = list(enumerate(tasks))
            jobs = self.jobs if self.backend == LOCAL else -1
            if self.backend == "ray":
                size = _CHUNK * max(1, joblib.effective_n_jobs(jobs))
                for start in range(0, len(numbered), size):
                    yield from _parallel(jobs, "list")(_calls(numbered[start : start + size]))
                return
            results = _parallel(jobs, "generator_unordered")(_calls(numbered))
            try:
                for result in results:  # noqa: UP028 - closing the other generator would warn of what is left undone
                    yield result
            except GeneratorExit:
                with suppress(_Abandoned):
                    results.throw(_Abandoned())
                raise


class _Abandoned(Exception):
    """The remaining results are not needed."""


def _parallel(jobs: int, return_as: str) -> Any:
    return joblib.Parallel(n_jobs=jobs, return_as=return_as)


def _calls(numbered: Sequence[tuple[int, Computation]]) -> Iterator[Any]:
    return (joblib.delayed(_computed)(index, task, os.getpid()) for index, task in numbered)


def _computed(index: int, task: Computation, parent: int) -> TaskResult:
    """Compute one task; an error comes back as text, since not every exception can be pickled."""
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
    """One thread for torch, which is not imported if it will start with one anyway."""
    if "torch" not in sys.modules and os.environ.get("OMP_NUM_THREADS") == "1":
        return nullcontext()
    from tfnas.utils.devices import torch_threads

    return torch_threads(1)


@contextmanager
def owned_processes() -> Iterator[None]:
    """End joblib's worker processes on this machine with the body.

    Otherwise they stay for minutes, and the end of the program waits for them.
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
def _backend_errors(pool: WorkerPool) -> Iterator[None]:
    """Turn whatever a backend raises into one RunFailed."""
    try:
        yield
    except (TfnasError, KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:
        # each backend has classes of its own for a dead worker and a lost connection, and not all can be imported here
        module = type(error).__module__.partition(".")[0]
        if module not in ("joblib", "loky", "distributed", "dask", "ray", "concurrent") and not _is_lost(error):
            raise
        where = "a process" if pool.backend == LOCAL else f"the {pool.backend} cluster"
        raise RunFailed(
            f"{where} failed while computing ({type(error).__name__}: {' '.join(str(error).split())[:200]}); a killed "
            "process has often run out of memory: use fewer --jobs"
        ) from error


def _is_lost(error: Exception) -> bool:
    return isinstance(error, TimeoutError | ConnectionError)


@contextmanager
def _joblib_backend(pool: WorkerPool) -> Iterator[None]:
    """Select the backend for joblib in the body."""
    if pool.backend == LOCAL:
        with (
            warnings.catch_warnings(),
            joblib.parallel_config(backend=LOCAL, n_jobs=pool.jobs, inner_max_num_threads=1),
        ):
            # joblib replaces a process whose memory has grown, which says nothing to a user
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
            yield
    elif pool.backend == "dask":
        distributed = _module("distributed", "dask")
        with _dask_client(distributed, pool) as client, joblib.parallel_config(backend="dask", client=client):
            yield
    else:
        ray = _module("ray", "ray")
        _module("ray.util.joblib", "ray").register_ray()
        with _ray_session(ray, pool), joblib.parallel_config(backend="ray"):
            yield


@contextmanager
def _dask_client(distributed: ModuleType, pool: WorkerPool) -> Iterator[Any]:
    """A client of the cluster at the address, of the one that dask's own settings name, or of one of its own."""
    named = pool.cluster or _module("dask", "dask").config.get("scheduler-address", None)
    try:
        if named is None:
            client = distributed.Client(n_workers=pool.jobs, threads_per_worker=1, dashboard_address=None)
        else:
            client = distributed.Client(named)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--cluster {named}: no dask scheduler responds at this address ({error})") from error
    with client:
        yield client


@contextmanager
def _ray_session(ray: ModuleType, pool: WorkerPool) -> Iterator[None]:
    """The ray session there is, or one for the duration."""
    if ray.is_initialized():
        yield
        return
    address = pool.cluster or os.environ.get("RAY_ADDRESS")
    try:
        if address is None:
            local = {"num_cpus": pool.jobs, "include_dashboard": False}
        else:
            _check_reachable(address)
            local = {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, ValueError, RuntimeError) as error:
        where = (
            "ray does not start here"
            if address is None
            else f"--cluster {address}: no ray cluster responds at this address"
        )
        raise InputError(f"{where} ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at host:port: ray itself would try for minutes and then end the process."""
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
