"""What a person sees of a search: the forecast, progress, a line per epoch, TensorBoard, and the closing summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tfnas.core.cost import Cost
from tfnas.latency.range_text import bounds_text
from tfnas.runs.run_directory import RunDirectory
from tfnas.searching.differentiable.derive import choice_of
from tfnas.searching.differentiable.forecast import Forecast, count_range, forecast
from tfnas.searching.differentiable.health import warnings
from tfnas.searching.differentiable.search_session import Session
from tfnas.searching.differentiable.search_setup import Setup
from tfnas.supernet.dispatch import cpu_kernels
from tfnas.utils.progress import TimeLeftColumn
from tfnas.utils.text import clock, short

SCALAR_STEPS = 10


class Reporter:
    """Shows a session's progress on the console, in the log and in TensorBoard. A context manager.

    Only that of the first process speaks.
    """

    def __init__(self, session: Session, run: RunDirectory) -> None:
        self.session, self.run = session, run
        self.speaks = session.setup.processes.is_rank_zero
        self.steps_per_epoch = session.setup.steps_per_epoch
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=run.console,
            disable=not (self.speaks and run.console.is_terminal),
            transient=True,
        )
        self.task: TaskID | None = None
        self.forecast: Forecast | None = None
        self.concluded = 0.0
        """Seconds, by the forecast, of what has been concluded."""
        self.candidates = 1

        self.said: set[str] = set()

    def __enter__(self) -> Reporter:
        if self.speaks:
            self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=self._total_steps() + 1)
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

    def _total_steps(self) -> int:
        return self.session.epoch * self.steps_per_epoch + self.session.step

    def announce(self, batch: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Say what is searched where, what the space spans, and, if steps are left, how long they will take.

        That is measured on a batch.
        """
        if self.speaks:
            for line in _what(self.session.setup, self.run):
                self.run.say(line)
        if self.session.epoch == self.session.setup.schedule.epochs:
            self.task = self.progress.add_task("concluding", total=None)
            return
        self.task = self.progress.add_task("timing the first steps", total=None)
        self.forecast = forecast(self.session, *batch())  # by all processes at once, as they will compute
        if not self.speaks:
            return
        without = "data loading" + (" and exchange" if self.session.setup.processes.world_size > 1 else "")
        self.run.say(
            f"time      about {clock(self.forecast.total - self.forecast.done(self.session))}: a weight step "
            f"{1000 * self.forecast.weight_step:.0f} ms, an architecture step "
            f"{1000 * self.forecast.architecture_step:.0f} ms, measured just now (without {without})"
        )
        done = round(1000 * self.forecast.done(self.session))
        self.progress.reset(self.task, description="search", total=1000 * self.forecast.total, completed=done)

    def show_step(self) -> None:
        """Progress; every `print_freq` steps a line in the log; every ten, scalars for TensorBoard."""
        if not self.speaks:
            return
        session, cost = self.session, self.session.setup.table.cost
        averages = session.totals.averages(cost.name)
        epoch = f"epoch {session.epoch + 1}/{session.setup.schedule.epochs} step {session.step}/{self.steps_per_epoch}"
        if self.task is not None and self.forecast is not None:
            text = f"{epoch}  loss {averages['weight_loss']:.3f}  paths {averages['path_accuracy']:.1f} %"
            self.progress.update(self.task, completed=1000 * self.forecast.done(session), description=text)
        if session.step % session.setup.config.print_freq == 0:
            self.run.say(f"{epoch}  {training_numbers(averages, cost)}")
        if session.step % SCALAR_STEPS == 0:
            for name, value in averages.items():
                self.writer.add_scalar(f"step/{name}", value, self._total_steps())

    def drawn(self, candidates: int) -> None:
        """So many candidates are there, the derived one among them; not every draw gives a new one."""
        new, self.candidates = candidates - self.candidates, candidates
        self._conclude("drawing candidates", 0.0 if self.forecast is None else new * self.forecast.draw)

    def evaluating(
        self, words: str, networks: int, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, each of which so many networks are evaluated on before the next is asked for."""
        seconds = 0.0 if self.forecast is None else networks * self.forecast.evaluation
        for batch in batches:
            yield batch
            self._conclude(words, seconds)

    def _conclude(self, words: str, seconds: float) -> None:
        self.concluded += seconds
        if self.task is None or not self.speaks:
            return
        self.progress.update(self.task, description=words)
        if self.forecast is not None:
            self.progress.update(
                self.task, completed=1000 * min(self.forecast.trained + self.concluded, self.forecast.total)
            )

    def show_epoch(self, entry: dict[str, float]) -> None:
        """A line, scalars and histograms of the epoch that has just ended, and what is unhealthy about it, once."""
        if not self.speaks:
            return
        session = self.session
        self.run.say(epoch_line(entry, session.setup.schedule.epochs, session.setup.table.cost))
        step = self._total_steps()
        for name, value in entry.items():
            if name == "epoch":
                continue
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


def _what(setup: Setup, run: RunDirectory) -> list[str]:
    smallest, largest = count_range(setup.space, setup.data.num_classes)
    bounds = bounds_text(setup.space, setup.table, setup.data.num_classes)
    number, processes = setup.schedule.threads, setup.processes.world_size
    where = f"{processes} processes on {setup.device.type}" if processes > 1 else setup.device
    threads = f", {number} thread{'s' * (number != 1)}" if setup.device.type == "cpu" else ""
    kernels = cpu_kernels(setup.device)
    slower = kernels is not None and not kernels.compiled()
    return [
        f"run       {run.path}",
        f"data      {setup.data.describe()}",
        f"space     {setup.space.name}: {len(setup.space.blocks)} blocks of {len(setup.space.operations)} "
        f"operations, {short(smallest.params)} to {short(largest.params)} parameters, "
        f"{short(smallest.macs)} to {short(largest.macs)} MACs",
        f"table     {setup.table.description}",
        *setup.remarks,
        f"target    {setup.table.quantity(setup.target_ms, 6)}; reachable {bounds}",
        f"train     {setup.schedule.epochs} epochs, {setup.schedule.warmup_epochs} of them warm-up, batch "
        f"{setup.schedule.batch_size}, on {where}{threads}, seed {setup.config.seed}",
        *(
            ["          without compiled kernels, so slower: install again where there is a C compiler"]
            if slower
            else []
        ),
    ]


def training_numbers(averages: Mapping[str, float], cost: Cost) -> str:
    """Training losses and accuracies in words; those of the architecture where it is trained."""
    text = f"loss {averages['weight_loss']:.3f}  sampled paths {averages['path_accuracy']:.1f} %"
    if f"expected_{cost.name}" in averages:
        text += f"  expected {cost.quantity(averages[f'expected_{cost.name}'])}"
    return text


def epoch_line(entry: Mapping[str, float], epochs: int, cost: Cost) -> str:
    """One line for an epoch's numbers."""
    line = f"epoch {entry['epoch']:.0f}/{epochs}  {training_numbers(entry, cost)}"
    if "alpha_move" in entry:
        line += (
            f"  derived {cost.quantity(entry[f'derived_{cost.name}'])}  T {entry['temperature']:.2f}  "
            f"entropy ops {entry['operation_entropy']:.2f} depth {entry['depth_entropy']:.2f}"
        )
    if "probe_loss" in entry:
        tau = f", tau {entry['probe_tau']:+.2f}" if "probe_tau" in entry else ""
        line += f"  probes {entry['probe_top1']:.1f} % (loss {entry['probe_loss']:.3f}{tau})"
    if "held_out_accuracy" in entry:
        line += f"  held-out path {entry['held_out_accuracy']:.1f} %"
    return line
