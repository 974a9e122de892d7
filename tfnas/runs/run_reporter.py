"""What a person sees of a run: a progress bar, lines in console and log, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from tfnas.runs.algorithm import Algorithm
from tfnas.runs.run_directory import RunDirectory
from tfnas.utils.progress import TimeLeftColumn
from tfnas.utils.text import clock, short, typed

SCALAR_STEPS = 10


class RunReporter:
    """Reports an algorithm's progress. A context manager; only that of rank 0 reports anything."""

    def __init__(self, algorithm: Algorithm[Any], run_dir: RunDirectory) -> None:
        self.algorithm, self.run_dir = algorithm, run_dir
        self.reports = algorithm.processes.is_rank_zero
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=run_dir.console,
            disable=not (self.reports and run_dir.console.is_terminal),
            transient=True,
        )
        self.task = TaskID(0)
        self.started, self.steps_before = time.monotonic(), self._steps()
        self.warned: set[str] = set()

    def __enter__(self) -> RunReporter:
        if self.reports:
            self.writer = SummaryWriter(str(self.run_dir.path / "tensorboard"), purge_step=self._steps() + 1)
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.progress.stop()
        if not self.reports:
            return
        try:
            self.writer.close()
        except OSError:
            if kind is None:  # else a full disk fails here again, and would hide the error that says so
                raise

    def _steps(self) -> int:
        progress = self.algorithm.progress
        return progress.epoch * self.algorithm.steps_per_epoch + progress.step

    def announce(self) -> None:
        """Describe the run; all processes call this, since what comes before the first step concerns them all."""
        if self.reports:
            for line in (f"run       {self.run_dir.path}", *self.algorithm.description()):
                self.run_dir.say(line)
        is_done = self.algorithm.progress.epoch == self.algorithm.epochs
        self.task = self.progress.add_task("concluding" if is_done else "timing the first steps", total=None)
        found = self.algorithm.before_training()
        if found is not None and self.reports:
            self.run_dir.say(found)
        if not is_done:
            done, total = self.algorithm.work()
            self.progress.reset(self.task, description=self.algorithm.kind, total=total, completed=round(done))

    def show_work(self, text: str) -> None:
        """What is being done now, and how far that is."""
        done, total = self.algorithm.work()
        self.progress.update(self.task, description=text, completed=done if total is None else min(done, total))

    def show_step(self) -> None:
        """Progress; every `print_freq` steps a line in the log; every ten, scalars for TensorBoard."""
        if not self.reports:
            return
        algorithm, progress = self.algorithm, self.algorithm.progress
        averages = algorithm.averages()
        place = f"epoch {progress.epoch + 1}/{algorithm.epochs} step {progress.step}/{algorithm.steps_per_epoch}"
        text = f"{place}  {algorithm.step_text(averages)}"
        self.show_work(text)
        if progress.step % algorithm.config.print_freq == 0:
            self.run_dir.say(text)
        if progress.step % SCALAR_STEPS == 0:
            for name, value in averages.items():
                self.writer.add_scalar(f"step/{name}", value, self._steps())

    def show_epoch(self, entry: Mapping[str, float]) -> None:
        """A line, scalars and histograms of the epoch that has just ended, and what is unhealthy about it, once."""
        if not self.reports:
            return
        algorithm, step = self.algorithm, self._steps()
        self.run_dir.say(
            f"epoch {entry['epoch']:.0f}/{algorithm.epochs}  {algorithm.epoch_text(entry)}{self._left_text()}"
        )
        for name, value in entry.items():
            if name != "epoch":
                self.writer.add_scalar(f"epoch/{name}", value, step)
        algorithm.add_histograms(self.writer, step)
        self.writer.flush()
        for warning in algorithm.epoch_warnings():
            if warning not in self.warned:
                self.run_dir.say(f"warning: {warning}")
                self.warned.add(warning)

    def _left_text(self) -> str:
        """The time left at the speed so far, where none was forecast and steps are left to be done."""
        done, total = self._steps() - self.steps_before, self.algorithm.epochs * self.algorithm.steps_per_epoch
        if self.algorithm.is_forecast or not done or self._steps() == total:
            return ""
        return f"  left {clock((time.monotonic() - self.started) / done * (total - self._steps()))}"


def network_line(summary: Mapping[str, Any]) -> str:
    """How large the network of a summary is."""
    return f"network   {short(summary['params'])} parameters, {short(summary['macs'])} MACs"


_PHASES = {"judging": "evaluation"}
"""What phases are called that files of runs call otherwise."""


def time_line(summary: Mapping[str, Any]) -> str:
    """The time of a summary, by phase."""
    seconds = summary["seconds"]
    names = {name: _PHASES.get(name, name).replace("_", " ") for name in seconds if name != "total"}
    phases = ", ".join(f"{name} {clock(seconds[key])}" for key, name in names.items())
    return f"took      {clock(seconds['total'])}: {phases}"


def files_line(run_dir: RunDirectory, *names: str) -> str:
    """Where the files of these names are, and those that every run has."""
    return f"files     {typed(run_dir.path)}: {', '.join(names)}, summary.json, tensorboard/, log.txt"


def place_text(algorithm: Algorithm[Any]) -> str:
    """Where a run computes: `cpu, 2 threads`, `4 processes on cuda`."""
    processes, threads = algorithm.processes, algorithm.threads
    kind, number = processes.device.type, processes.world_size
    where = f"{number} processes on {kind}" if number > 1 else str(processes.device)
    return where + (f", {threads} thread{'s' * (threads != 1)}" if kind == "cpu" else "")
