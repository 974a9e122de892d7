"""What a person sees of a training run: what is trained, progress, a line per epoch, TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from tfnas.runs.run_directory import RunDirectory
from tfnas.spaces.families import architecture_counts
from tfnas.training.train_session import Session
from tfnas.training.train_setup import Setup
from tfnas.utils.text import clock, short

SCALAR_STEPS = 10


class Reporter:
    """Shows a session's progress on the console, in the log and in TensorBoard. A context manager.

    Only that of the first process speaks.
    """

    def __init__(self, session: Session, run: RunDirectory, speaks: bool) -> None:
        self.session, self.run, self.speaks = session, run, speaks
        self.steps_per_epoch = session.setup.steps_per_epoch
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=run.console,
            disable=not (speaks and run.console.is_terminal),
            transient=True,
        )
        self.task: TaskID | None = None
        self.started, self.steps_before = time.monotonic(), self._steps_done()

    def __enter__(self) -> Reporter:
        if self.speaks:
            self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=self._steps_done() + 1)
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.progress.stop()
        if not self.speaks:
            return
        try:
            self.writer.close()
        except OSError:
            if kind is None:  # else a full disk fails here again, and would hide the error that says so
                raise

    def _steps_done(self) -> int:
        return self.session.epoch * self.steps_per_epoch + self.session.step

    def announce(self) -> None:
        """Say what is trained, on what and how."""
        if not self.speaks:
            return
        setup = self.session.setup
        for line in (f"run       {self.run.path}", *_what(setup)):
            self.run.say(line)
        if setup.data.validation is None:
            self.run.say("warning: there are no images to judge by: name some with --val_root and --val_list")
        for note in setup.notes:
            self.run.say(f"warning: {note}")
        total = setup.recipe.epochs * self.steps_per_epoch
        self.task = self.progress.add_task("train", total=total, completed=self._steps_done())

    def show_inherited(self) -> None:
        """What the inherited weights are worth before any training."""
        if self.speaks and self.session.inherited:
            found = self.session.inherited
            self.run.say(f"inherited top-1 {found['top1']:.2f} %, loss {found['loss']:.3f} before any training")

    def show_step(self) -> None:
        """Progress; every `print_freq` steps a line in the log; every ten, scalars for TensorBoard."""
        session = self.session
        if not self.speaks:
            return
        averages = session.totals.averages()
        where = f"epoch {session.epoch + 1}/{session.setup.recipe.epochs} step {session.step}/{self.steps_per_epoch}"
        numbers = f"loss {averages['train_loss']:.3f}  top-1 {averages['train_top1']:.1f} %"
        if self.task is not None:
            self.progress.update(self.task, completed=self._steps_done(), description=f"{where}  {numbers}")
        if session.step % session.setup.config.print_freq == 0:
            self.run.say(f"{where}  {numbers}")
        if session.step % SCALAR_STEPS == 0:
            for name, value in averages.items():
                self.writer.add_scalar(f"step/{name}", value, self._steps_done())

    def show_epoch(self, entry: Mapping[str, float]) -> None:
        """A line and scalars of the epoch that has just ended, and what is left."""
        if not self.speaks:
            return
        epochs = self.session.setup.recipe.epochs
        left, done = "", self._steps_done() - self.steps_before  # none where a run goes on behind an epoch's last step
        if done and self.session.epoch < epochs:
            per_step = (time.monotonic() - self.started) / done
            left = f"  left {clock(per_step * (epochs * self.steps_per_epoch - self._steps_done()))}"
        self.run.say(f"epoch {entry['epoch']:.0f}/{epochs}  {_numbers(entry)}{left}")
        for name, value in entry.items():
            if name != "epoch":
                self.writer.add_scalar(f"epoch/{name}", value, self._steps_done())
        self.writer.flush()


def _what(setup: Setup) -> list[str]:
    recipe, config, processes = setup.recipe, setup.config, setup.processes
    counts = architecture_counts(setup.architecture)
    where = (
        f"{processes.world_size} processes on {processes.device.type}" if processes.world_size > 1 else processes.device
    )
    threads = f", {recipe.threads} thread{'s' * (recipe.threads != 1)}" if processes.device.type == "cpu" else ""
    return [
        f"data      {setup.data.describe()}",
        f"network   {short(counts.params)} parameters, {short(counts.macs)} MACs, "
        + (f"weights of {config.inherit}" if config.inherit else f"fresh weights of seed {config.seed}"),
        f"train     {recipe.epochs} epochs of {setup.steps_per_epoch} steps, batch {recipe.batch_size}, "
        f"lr {recipe.lr:g}, {config.opt_level} on {where}{threads}",
    ]


def _numbers(entry: Mapping[str, float]) -> str:
    text = f"loss {entry['train_loss']:.3f}  top-1 {entry['train_top1']:.1f} %"
    if "top1" in entry:
        text += f"  |  judged: loss {entry['loss']:.3f}  top-1 {entry['top1']:.2f} %"
    return text
