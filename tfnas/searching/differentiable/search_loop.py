"""The search, from a configuration to an architecture that meets its target (TF-NAS, algorithm 1).

    result = search(SearchConfig(target_lat=15))

`result.architecture` is what to build, `result.run_dir` holds all files. Under torchrun every process calls this.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.data.loading import kept_workers
from tfnas.runs.distributed import distributed_context
from tfnas.runs.endings import Remains, end_together, handle_errors, report_once, report_peer_failure
from tfnas.runs.resumption import changed_settings, newest_state, resumed_config, saved_settings
from tfnas.runs.run_directory import Interruption, RunDirectory, run_path, watch_interruption
from tfnas.runs.search_run import search_checkpoints
from tfnas.searching.differentiable.architecture_parameters import trains_architecture
from tfnas.searching.differentiable.sanity_networks import Probes, sample_sanity_networks
from tfnas.searching.differentiable.search_batches import (
    check_agreement,
    held_out_batches,
    judged_batches,
    shared_batches,
)
from tfnas.searching.differentiable.search_conclusion import conclude
from tfnas.searching.differentiable.search_config import MAY_CHANGE, RESCUES, SearchConfig
from tfnas.searching.differentiable.search_reporter import Reporter
from tfnas.searching.differentiable.search_session import Session, start_session
from tfnas.searching.differentiable.search_setup import Setup, effective, prepare
from tfnas.utils.progress import waiting
from tfnas.utils.text import command_line
from tfnas.utils.torch_settings import runtime_settings


@dataclass(frozen=True)
class SearchResult:
    """What a search returns: the architecture, where the run's files are, and the numbers of `summary.json`."""

    architecture: Architecture
    run_dir: Path
    summary: dict[str, Any]


def search(config: SearchConfig, console: Console | None = None, given: Collection[str] | None = None) -> SearchResult:
    """Search, or go on with the search that `config.resume` names.

    `given` names the settings that were said, for a resumed run to compare with its own; by default those that differ
    from their defaults.

    Raises InputError, Infeasible (before anything is written), RunFailed and Interrupted (state saved).
    """
    run_dir = remark = None
    if config.resume is not None:
        run_dir = Path(config.resume)
        saved = saved_settings(run_dir, search_checkpoints(run_dir), SearchConfig, may_change=MAY_CHANGE)
        config, remark = resumed_config(config, saved.current, given, may_change=MAY_CHANGE), saved.remark
    with distributed_context(config.device, config.local_rank, config.rank_timeout) as processes:
        console = (console or Console()) if processes.is_rank_zero else Console(quiet=True)
        with waiting(console, "opening the table and the images"):
            setup = processes.barrier(lambda: prepare(config, processes))
            probes = sample_sanity_networks(setup)
        made = processes.barrier(lambda: _run_directory(setup, run_dir, console) if processes.is_rank_zero else None)
        path = processes.broadcast_bytes(None if made is None else str(made.path).encode())
        run = made or RunDirectory(Path((path or b"").decode()), console)
        how = runtime_settings(setup.schedule.threads, setup.config.deterministic)
        with ExitStack() as lock, how, kept_workers(), watch_interruption(console) as interruption:
            processes.barrier(lambda: lock.enter_context(run.locked(exclusive=processes.is_rank_zero)))
            if remark is not None and processes.is_rank_zero:
                run.say(remark)
            return _Search(setup, probes, run, interruption).run()


class _Search:
    """One process's part of a run: trains a session; the first process reports and saves."""

    def __init__(self, setup: Setup, probes: Probes, run: RunDirectory, interruption: Interruption) -> None:
        self.setup, self.probes, self.run_dir, self.interruption = setup, probes, run, interruption
        self.processes = setup.processes
        self.checkpoints = search_checkpoints(run.path)
        self.session: Session
        self.saved_at = time.monotonic()
        resume = command_line("search", "--resume", run.path, launcher=self.processes.launcher)
        self.how_to_resume = f"Resume with: {resume}"
        self.remains = Remains(self.checkpoints, self.how_to_resume)

    def run(self) -> SearchResult:
        """All epochs that are left, then the conclusion."""
        with (
            report_once(self.processes),
            handle_errors(self.interruption, self.remains, self._out_of_memory()),
            report_peer_failure(self.processes, self.interruption, self.remains),
        ):
            with waiting(self.run_dir.console, "preparing the supernet"):
                self._begin()
            self.session.spend("judging", self.probes.seconds)
            with Reporter(self.session, self.run_dir) as reporter:
                reporter.announce(self._first_batch)
                while self.session.epoch < self.setup.schedule.epochs:
                    self._train_epoch(reporter)
                    entry = self.session.finish_epoch(self._held_out_once())
                    check_agreement(self.session.learner, self.processes)
                    reporter.show_epoch(entry)
                    self._save()
                    if any(self.processes.all_reduce_sum([self.interruption.signal is not None])):
                        end_together(self.interruption, self.how_to_resume)
                architecture, summary = conclude(self.session, self.run_dir, self._held_out_once, reporter)
        return SearchResult(architecture, self.run_dir.path, summary)

    def _begin(self) -> None:
        """Stand at the newest readable checkpoint, or save the beginning, which also shows that the disk takes it."""
        self.session = start_session(self.setup)
        self.session.probes = self.probes
        saved = newest_state(self.checkpoints, self.processes, self.run_dir.say)
        if saved is None:
            self._save()
            return
        state, path = saved
        self.processes.barrier(lambda: self.session.restore(state))
        if not self.processes.is_rank_zero:
            return
        self.run_dir.write_config(effective(self.setup))  # with what may have changed, now that all of it fits
        changed = changed_settings(self.setup.config, state, RESCUES)
        if changed is not None:
            self.run_dir.say(f"going on with {changed}")
        epochs = self.setup.schedule.epochs
        if self.session.epoch == epochs:
            self.run_dir.say(f"all {epochs} epochs of this run are done: writing its results again from {path}")
        else:
            where = f"epoch {self.session.epoch + 1}/{epochs}, step {self.session.step}"
            self.run_dir.say(f"resumed at {where}, from {path}")

    def _train_epoch(self, reporter: Reporter) -> None:
        session = self.session
        held_out: Iterator[tuple[Tensor, Tensor]] | None = None
        waiting = time.perf_counter()
        for images, labels in shared_batches(
            self.setup, self.setup.data.weights, turn=session.epoch, first=session.step
        ):
            start = time.perf_counter()
            session.spend("data", start - waiting)
            session.train_weights(images, labels)
            session.spend("weights", time.perf_counter() - start)
            if trains_architecture(self.setup.schedule, session.epoch) and session.step % 2 == 0:
                start = time.perf_counter()
                held_out = held_out or held_out_batches(self.setup, session.epoch, session.step // 2)
                session.train_architecture(*next(held_out))
                session.spend("architecture", time.perf_counter() - start)
            session.step += 1
            reporter.show_step()
            self._save_if_due()
            waiting = time.perf_counter()

    def _save_if_due(self) -> None:
        """Save, and end, where that is asked for in any process; save where the first one says that it is time."""
        late = time.monotonic() - self.saved_at > 60 * self.setup.config.save_minutes
        asked, due = self.processes.all_reduce_sum(
            [self.interruption.signal is not None, self.processes.is_rank_zero and late]
        )
        if asked or due:
            self._save()
        if asked:
            end_together(self.interruption, self.how_to_resume)

    def _save(self) -> None:
        start = time.monotonic()
        self.processes.barrier(self._write_state)
        self.saved_at = time.monotonic()
        self.session.spend("saving", self.saved_at - start)

    def _write_state(self) -> None:
        """All processes have the same state, so the first one alone writes it."""
        self.session.check_finite()
        if self.processes.is_rank_zero:
            self.checkpoints.save(self.session.state(), self.session.epoch, self.session.step)

    def _held_out_once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The architecture part in its own order, for judging; an interruption need not wait for the end."""
        for images, labels in judged_batches(self.setup):
            if self.processes.world_size == 1:  # several judge to the end together
                self.interruption.raise_if_asked(self.remains())
            yield images, labels

    def _first_batch(self) -> tuple[Tensor, Tensor]:
        for images, labels in shared_batches(self.setup, self.setup.data.weights, turn=self.session.epoch):
            return self.session.place(images, labels)
        raise InputError("the weight part holds no image")

    def _out_of_memory(self) -> str:
        batch_size, number = self.setup.schedule.batch_size, self.processes.world_size
        over = f" over {number} processes" if number > 1 else ""
        saver = "" if self.setup.config.low_memory else f"{self.how_to_resume} --low_memory, which takes less. Or: "
        return (
            f"out of memory at batch size {batch_size}{over}. What was saved before is kept. {saver}a run keeps its "
            "batch size, so start a new one with a smaller --image_size or --batch_size, for instance "
            f"--batch_size {batch_size // 2}"
        )


def _run_directory(setup: Setup, run_dir: Path | None, console: Console) -> RunDirectory:
    """The run's directory, that which goes on or a new one."""
    if run_dir is not None:
        return RunDirectory(run_dir, console)
    return RunDirectory.create(*run_path("search", setup.config), effective(setup), console)
