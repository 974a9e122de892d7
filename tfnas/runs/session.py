"""One run of an algorithm: run directory, epochs, checkpoints, resumption, interruption, failures.

    run_algorithm(config, open_algorithm)

Under torchrun every process calls this; rank 0 reports and saves.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from rich.console import Console

from tfnas.core.errors import InputError, RunFailed
from tfnas.data.image_batches import persistent_workers
from tfnas.runs.algorithm import Algorithm
from tfnas.runs.distributed import DistributedContext, distributed_context
from tfnas.runs.endings import (
    Interruption,
    Remains,
    end_together,
    handle_errors,
    report_once,
    report_peer_failure,
    watch_interruption,
)
from tfnas.runs.run_directory import SUMMARY_FILE, Checkpoints, RunDirectory, State, run_path
from tfnas.runs.run_reporter import RunReporter
from tfnas.runs.run_settings import SETTINGS, RunSettings, recorded_settings
from tfnas.utils.devices import instruction_sets, runtime_settings
from tfnas.utils.progress import waiting


class Resumable(Protocol):
    """A configuration that may name a run to go on with."""

    @property
    def resume(self) -> str | None:
        """The directory of an interrupted run."""


C = TypeVar("C", bound=Resumable)


@dataclass(frozen=True)
class ResumedRun:
    """The directory of a run to resume, and a remark on its settings."""

    run_dir: Path
    remark: str | None = None


def with_resumed(
    config: C, kind: str, given: Collection[str] | None, may_change: Collection[str]
) -> tuple[C, ResumedRun | None]:
    """The configuration (with a `resume`) to run with, and the run of this kind to resume, where it names one.

    `given` and `may_change` as in `tfnas.runs.resumption.resumed_config`. Raises as `resumed_settings` there does.
    """
    if config.resume is None:
        return config, None
    from tfnas.runs.resumption import resumed_settings

    run_dir = Path(config.resume)
    config, remark = resumed_settings(config, run_dir, kind, given, may_change=may_change)
    return config, ResumedRun(run_dir, remark)


def run_algorithm(
    config: RunSettings,
    open_algorithm: Callable[[DistributedContext], Algorithm[Any]],
    console: Console | None = None,
    resumed: ResumedRun | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Run an algorithm to its end; returns its run directory and the numbers of `summary.json`.

    `open_algorithm` opens and checks all inputs, in every process together.

    Raises what that raises and InputError (before anything is written), RunFailed and Interrupted (state saved).
    """
    with (
        distributed_context(config.device, config.local_rank, config.rank_timeout) as processes,
        _own_randomness(processes.device),
    ):
        console = (console or Console()) if processes.is_rank_zero else Console(quiet=True)
        with waiting(console, "opening the inputs"):
            algorithm = open_algorithm(processes)
        path = Path(processes.from_rank_zero(lambda: str(_directory(algorithm, resumed, console))))
        run_dir = RunDirectory(path, console)
        how = runtime_settings(algorithm.threads, config.deterministic, float32=algorithm.true_float32)
        with ExitStack() as lock, how, persistent_workers(), watch_interruption(console) as interruption:
            processes.barrier(lambda: lock.enter_context(run_dir.locked(exclusive=processes.is_rank_zero)))
            if resumed is not None and resumed.remark is not None and processes.is_rank_zero:
                run_dir.say(resumed.remark)
            return path, Session(algorithm, run_dir, interruption).run()


class Session:
    """One process's part of a run."""

    def __init__(self, algorithm: Algorithm[Any], run_dir: RunDirectory, interruption: Interruption) -> None:
        self.algorithm, self.run_dir, self.interruption = algorithm, run_dir, interruption
        self.processes, self.progress = algorithm.processes, algorithm.progress
        self.checkpoints = Checkpoints(run_dir.path, algorithm.kind)
        self.saved_at = time.monotonic()
        self.how_to_resume = algorithm.how_to_resume(run_dir.path)
        self.remains = Remains(self.checkpoints, self.how_to_resume)
        algorithm.raise_if_interrupted = lambda: interruption.raise_if_asked(self.remains())

    def run(self) -> dict[str, Any]:
        """All epochs that are left, then the results. Returns the summary."""
        algorithm = self.algorithm
        with (
            report_once(self.processes),
            handle_errors(self.interruption, self.remains, algorithm.out_of_memory(self.how_to_resume)),
            report_peer_failure(self.processes, self.interruption, self.remains),
        ):
            self._begin()
            with RunReporter(algorithm, self.run_dir) as reporter:
                reporter.announce()
                while self.progress.epoch < algorithm.epochs:
                    for batch in self._batches():
                        algorithm.step(batch)
                        self.progress.step += 1
                        reporter.show_step()
                        self._save_if_due()
                    self._end_epoch(reporter)
                return self._conclude(reporter)

    def _begin(self) -> None:
        """Restore the newest readable checkpoint, or save the beginning, which also shows that the disk takes it."""
        algorithm = self.algorithm
        with waiting(self.run_dir.console, "preparing the weights"):
            algorithm.build()
            found = newest_state(self.checkpoints, self.processes, self.run_dir.say)
            if found is None:
                algorithm.begin()
                self._save()
                return
            state, path = found
            self.processes.barrier(lambda: self.restore(state))
        if not self.processes.is_rank_zero:
            return
        self.run_dir.write_config(algorithm.effective_config())  # with what may have changed, now that all of it fits
        from tfnas.runs.resumption import changed_settings

        changed = changed_settings(algorithm.config, state, algorithm.rescues)
        if changed is not None:
            self.run_dir.say(f"resuming with changed settings: {changed}")
        epochs, progress = algorithm.epochs, self.progress
        if progress.epoch == epochs:
            self.run_dir.say(f"all {epochs} epochs of this run are done: writing its results again from {path}")
        else:
            self.run_dir.say(f"resumed at epoch {progress.epoch + 1}/{epochs}, step {progress.step}, from {path}")

    def _batches(self) -> Iterator[Any]:
        """What is left of the epoch; the time that it is waited for is accounted for."""
        waiting_since = time.perf_counter()
        for batch in self.algorithm.batches():
            self.progress.spend("data", time.perf_counter() - waiting_since)
            yield batch
            waiting_since = time.perf_counter()

    def _end_epoch(self, reporter: RunReporter) -> None:
        entry = {"epoch": float(self.progress.epoch + 1), **self.algorithm.finish_epoch()}
        self.progress.end_epoch(entry)
        reporter.show_epoch(entry)
        self._save()
        if any(self.processes.all_reduce_sum([self.interruption.signal is not None])):
            end_together(self.interruption, self.how_to_resume)

    def _conclude(self, reporter: RunReporter) -> dict[str, Any]:
        """Write the summary last: where it is, the run has ended."""
        algorithm, seconds = self.algorithm, self.progress.seconds
        results = algorithm.conclude(reporter.show_work)
        summary = {
            **results,
            "seed": algorithm.config.seed,
            "processes": self.processes.world_size,
            "instruction_sets": list(instruction_sets()),
            "seconds": {**seconds, "total": sum(seconds.values())},
            "history": self.progress.history,
        }
        if self.processes.is_rank_zero:
            algorithm.write_results(self.run_dir)
            self.run_dir.write_json(SUMMARY_FILE, summary)
            algorithm.show_results(self.run_dir, summary)
        return summary

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The complete state needed to resume."""
        settings = recorded_settings(self.algorithm.effective_config())
        return {SETTINGS: settings, **self.algorithm.state(), **self.progress.state()}

    def restore(self, state: State) -> None:
        """Restore `state`. Raises InputError when what must be as it was then is not."""
        for name, then, now in self.algorithm.compared(state):
            if then != now:
                raise InputError(
                    f"the run cannot be resumed: its {name} was {then!r} when it was saved and is now {now!r}"
                )
        self.progress.restore(state)
        self.algorithm.restore(state)

    def _save_if_due(self) -> None:
        """Save, and end, where that is asked for in any process; save where rank 0 says that it is time."""
        late = time.monotonic() - self.saved_at > 60 * self.algorithm.config.save_minutes
        wishes = [self.interruption.signal is not None, self.processes.is_rank_zero and late]
        asked, due = self.processes.all_reduce_sum(wishes)
        if asked or due:
            self._save()
        if asked:
            end_together(self.interruption, self.how_to_resume)

    def _save(self) -> None:
        start = time.monotonic()
        self.processes.barrier(self._write_state)
        self.saved_at = time.monotonic()
        self.progress.spend("saving", self.saved_at - start)

    def _write_state(self) -> None:
        """All processes have the same state, so rank 0 alone writes it. One that is not finite replaces no good one."""
        for name, value in self.algorithm.tensors():
            if not torch.isfinite(value).all():
                raise RunFailed(f"{name} is no longer finite, so this state is not saved: lower {self.algorithm.lower}")
        if self.processes.is_rank_zero:
            self.checkpoints.save(self.state(), self.progress.epoch, self.progress.step)


def newest_state(
    checkpoints: Checkpoints, processes: DistributedContext, say: Callable[[str], None]
) -> tuple[State, Path | None] | None:
    """The newest readable state, which rank 0 reads and broadcasts, and (in rank 0) where it was.

    None at the beginning of a run. What is wrong with newer ones is said. Raises InputError where none is readable, and
    RunFailed where the folder is not, in all processes.
    """

    def read() -> tuple[State, Path, bytes] | None:
        try:
            if not processes.is_rank_zero or not checkpoints.prepare():
                return None
            state, path, problems = checkpoints.load_latest()
            for problem in problems:
                say(f"warning: {problem}; using the previous one")
            checkpoints.set_aside(path)
            return state, path, b"" if processes.world_size == 1 else path.read_bytes()
        except OSError as error:
            raise RunFailed(f"cannot read the checkpoints in {checkpoints.folder}: {error}") from error

    found = processes.barrier(read)
    data = None if found is None else found[2]
    if processes.world_size > 1:
        data = processes.broadcast_bytes(data)
    if found is not None:
        return found[:2]
    if data is None:
        return None
    from tfnas.utils.tensor_file import load_plain_bytes

    return dict(load_plain_bytes(io.BytesIO(data), "the checkpoint")), None


def _directory(algorithm: Algorithm[Any], resumed: ResumedRun | None, console: Console) -> Path:
    """The directory of the resumed run, or a new one with its inputs in it."""
    if resumed is not None:
        return resumed.run_dir
    place = run_path(algorithm.kind, algorithm.config)
    run_dir = RunDirectory.create(*place, algorithm.effective_config(), console, algorithm.resume_flag)
    algorithm.write_inputs(run_dir)
    return run_dir.path


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leave PyTorch's global generators, which steps may seed, as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
