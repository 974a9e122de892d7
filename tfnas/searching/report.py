"""What a person sees of a search: the forecast, progress, a line per epoch, TensorBoard, and the closing summary."""

from __future__ import annotations

import math
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tfnas.run import RunDirectory
from tfnas.searching.derive import choice_of
from tfnas.searching.forecast import count_range, forecast
from tfnas.searching.health import warnings
from tfnas.searching.session import Session


class Reporter:
    """Shows a session's progress on the console, in the log and in TensorBoard. A context manager."""

    def __init__(self, session: Session, run: RunDirectory) -> None:
        self.session, self.run = session, run
        schedule = session.setup.schedule
        self.steps_per_epoch = math.ceil(len(session.setup.data.weights) / schedule.batch_size)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, left"),
            TimeRemainingColumn(),
            console=run.console,
            disable=not run.console.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None
        self.said: set[str] = set()

    def __enter__(self) -> Reporter:
        self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=self._total_steps())
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.progress.stop()
        try:
            self.writer.close()
        except OSError:
            if kind is None:  # else a full disk fails here again, and would hide the error that says so
                raise

    def _total_steps(self) -> int:
        return self.session.epoch * self.steps_per_epoch + self.session.step

    def announce(self, batch: tuple[Tensor, Tensor]) -> None:
        """Say what is searched where, what the space spans, and (measured on a batch) how long it will take."""
        setup = self.session.setup
        smallest, largest = count_range(setup.space, setup.data.num_classes)
        threads = f", {setup.schedule.threads or 'all'} threads" if setup.device.type == "cpu" else ""
        for line in (
            f"run      {self.run.path}",
            f"data     {setup.data.describe()}",
            f"space    {setup.space.name}: {len(setup.space.blocks)} blocks of {len(setup.space.operations)} "
            f"operations, {smallest.params / 1e6:.3g} to {largest.params / 1e6:.3g} M parameters, "
            f"{smallest.macs / 1e6:.3g} to {largest.macs / 1e6:.3g} M MACs",
            f"table    {setup.table.description}",
            f"target   {setup.target_ms:g} ms; reachable {setup.table.bounds_text(setup.space)}",
            f"train    {setup.schedule.epochs} epochs, {setup.schedule.warmup_epochs} of them warm-up, batch "
            f"{setup.schedule.batch_size}, on {setup.device}{threads}, seed {setup.config.seed}",
        ):
            self.run.say(line)
        if self.session.epoch < setup.schedule.epochs:
            times = forecast(self.session, *batch)
            self.run.say(
                f"will take about {clock(times.remaining)}: a weight step {1000 * times.weight_step:.0f} ms, an "
                f"architecture step {1000 * times.architecture_step:.0f} ms, measured just now (without data loading)"
            )
        total = setup.schedule.epochs * self.steps_per_epoch
        self.task = self.progress.add_task("search", total=total, completed=self._total_steps())

    def show_step(self) -> None:
        """Progress; every `print_freq` steps a line in the log and scalars for TensorBoard."""
        session, averages = self.session, self.session.totals.averages()
        epoch = f"epoch {session.epoch + 1}/{session.setup.schedule.epochs}"
        if self.task is not None:
            text = f"{epoch}  loss {averages['weight_loss']:.3f}  paths {averages['path_accuracy']:.1f} %"
            self.progress.update(self.task, completed=self._total_steps(), description=text)
        if self._total_steps() % session.setup.config.print_freq == 0:
            parts = "  ".join(f"{name} {value:.4g}" for name, value in averages.items())
            self.run.say(f"{epoch} step {session.step}/{self.steps_per_epoch}  {parts}")
            for name, value in averages.items():
                self.writer.add_scalar(f"step/{name}", value, self._total_steps())

    def show_epoch(self, entry: dict[str, float]) -> None:
        """A line, scalars and histograms of the epoch that has just ended, and what is unhealthy about it, once."""
        session = self.session
        self.run.say(epoch_line(entry, session.setup.schedule.epochs))
        step = self._total_steps()
        for name, value in entry.items():
            self.writer.add_scalar(f"epoch/{name}", value, step)
        parameters = session.learner.parameters
        for place, log_alphas in zip(session.setup.space.blocks, parameters.log_alphas.detach().cpu(), strict=True):
            self.writer.add_histogram(f"alphas/{place.name}", log_alphas.exp(), step)
        for stage, weights in enumerate(parameters.depth_weights(), 1):
            self.writer.add_histogram(f"depth/stage{stage}", weights.detach().cpu(), step)
        self.writer.flush()
        if "alpha_move" in entry:
            for warning in warnings(choice_of(session.learner), session.history):
                if warning not in self.said:
                    self.run.say(f"warning: {warning}")
                    self.said.add(warning)


def epoch_line(entry: dict[str, float], epochs: int) -> str:
    """One line for an epoch's numbers."""
    line = (
        f"epoch {entry['epoch']:.0f}/{epochs}  loss {entry['weight_loss']:.3f}  "
        f"sampled paths {entry['path_accuracy']:.1f} %"
    )
    if "alpha_move" in entry:
        line += (
            f"  expected {entry['expected_ms']:.2f} ms  derived {entry['derived_ms']:.2f} ms  "
            f"T {entry['temperature']:.2f}  entropy ops {entry['operation_entropy']:.2f} "
            f"depth {entry['depth_entropy']:.2f}"
        )
    if "held_out_accuracy" in entry:
        line += f"  held-out {entry['held_out_accuracy']:.1f} %"
    return line


def clock(seconds: float) -> str:
    """Seconds as a person says them: `2 min 5 s`, `3 h 10 min`, `1.8 days`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 2 * 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:.1f} days"
