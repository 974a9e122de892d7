"""What an algorithm says of itself; everything else about a run is the `Session`'s.

A subclass of `Algorithm` says what a step is, what must be saved, and what is written at the end. Every process of a
run has one; unless a method says otherwise, all of them call it together.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor

from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import RunDirectory, State
from tfnas.runs.run_settings import RunSettings
from tfnas.utils.text import command_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Batch = TypeVar("Batch")
Show = Callable[[str], None]


@dataclass
class RunProgress:
    """The state of a run: `step` steps of `epoch` (counted from 0) are done.

    `totals` are sums over the steps of the epoch so far, `history` has the numbers of every finished epoch, `seconds`
    the time spent by phase.
    """

    epoch: int = 0
    step: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, **amounts: float) -> None:
        """Add to the totals of the epoch."""
        for name, amount in amounts.items():
            self.totals[name] = self.totals.get(name, 0) + amount

    def mean(self, total: str, count: str) -> float:
        """One total over another; 0 while there is nothing to count."""
        return self.totals.get(total, 0.0) / max(1, self.totals.get(count, 0))

    def percent(self, total: str, count: str) -> float:
        """The same in percent."""
        return 100 * self.totals.get(total, 0.0) / max(1, self.totals.get(count, 0))

    def spend(self, phase: str, seconds: float) -> None:
        """Account for time."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Account for the time that the body takes."""
        start = time.perf_counter()
        yield
        self.spend(phase, time.perf_counter() - start)

    def end_epoch(self, entry: dict[str, float]) -> None:
        """Put the epoch's numbers into the history and continue with the next epoch."""
        self.history.append(entry)
        self.epoch, self.step, self.totals = self.epoch + 1, 0, {}

    def state(self) -> State:
        """What a checkpoint stores besides epoch and step, which it always has."""
        return {"totals": self.totals, "history": self.history, "seconds": self.seconds}

    def restore(self, state: State) -> None:
        """Restore `state`, epoch and step included."""
        self.totals, self.history = dict(state["totals"]), list(state["history"])
        self.seconds = dict(state["seconds"])
        self.epoch, self.step = state["epoch"], state["step"]


class Algorithm(ABC, Generic[Batch]):
    """A run's algorithm in one of its processes.

    `kind` names its run directories and checkpoints, and the command that runs it; `resume_flag` resumes a run of it.
    Of its settings, `rescues` are those whose change a resumed run reports; `lower` names the learning rates to lower
    when a number is no longer finite. `true_float32` keeps a GPU from rounding float32 to TF32. Where `is_forecast`,
    `work` was measured beforehand; otherwise the time left is reported after every epoch.
    """

    kind: ClassVar[str]
    resume_flag: ClassVar[str] = "--resume"
    rescues: ClassVar[Collection[str]] = ()
    lower: ClassVar[str] = "the learning rate"
    is_forecast: ClassVar[bool] = False
    true_float32: bool = False

    def __init__(
        self,
        config: RunSettings,
        processes: DistributedContext,
        *,
        epochs: int,
        steps_per_epoch: int,
        threads: int = 1,
    ) -> None:
        self.config, self.processes = config, processes
        self.epochs, self.steps_per_epoch, self.threads = epochs, steps_per_epoch, threads
        self.progress = RunProgress()
        self.raise_if_interrupted: Callable[[], None] = lambda: None
        """Ends the run where it was interrupted; a `Session` sets it."""

    # ---- what it does -----------------------------------------------------------------------------------------

    def build(self) -> None:
        """Make what the steps change, with the values that a run begins with."""

    def begin(self) -> None:
        """At the beginning of a new run, before its first state is saved."""

    def before_training(self) -> str | None:
        """Before the first step, of a resumed run too: a line to report, if any."""
        return None

    def batches(self) -> Iterable[Batch]:
        """What the steps of this epoch are given, from step number `progress.step` on."""
        steps: Iterable[Any] = range(self.progress.step, self.steps_per_epoch)
        return steps

    @abstractmethod
    def step(self, batch: Batch) -> None:
        """One step. Raises RunFailed, having changed nothing, when a number is not finite."""

    def finish_epoch(self) -> dict[str, float]:
        """The numbers of the epoch whose steps are done."""
        return self.averages()

    @abstractmethod
    def conclude(self, show: Show) -> dict[str, Any]:
        """The result's numbers for `summary.json`, once all epochs are done. `show` takes what is being done."""

    def write_inputs(self, run_dir: RunDirectory) -> None:
        """In rank 0: write what a new run directory contains from the beginning, besides its configuration."""

    def write_results(self, run_dir: RunDirectory) -> None:
        """In rank 0: write the results' files, but for `summary.json`."""

    def interruptible(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; in a single process an interruption need not wait for the last one."""
        for batch in batches:
            if self.processes.world_size == 1:
                self.raise_if_interrupted()
            yield batch

    # ---- what is saved ----------------------------------------------------------------------------------------

    def effective_config(self) -> RunSettings:
        """The configuration with all defaults written out."""
        return self.config

    @abstractmethod
    def state(self) -> State:
        """All that is needed to resume besides the progress, as plain tensors, numbers and text."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Restore `state`."""

    def compared(self, state: State) -> Iterable[tuple[str, object, object]]:  # noqa: ARG002 - for subclasses
        """What must be as it was when `state` was saved: its name, what it was, and what it is."""
        return ()

    def tensors(self) -> Iterable[tuple[str, Tensor]]:
        """By name, what must be finite to be saved."""
        return ()

    # ---- what a person sees -----------------------------------------------------------------------------------

    def description(self) -> list[str]:
        """Lines on what the run does, with what and where."""
        return []

    def work(self) -> tuple[float, float | None]:
        """What is done, and what there is to do in all if that is known, in any unit; by default steps."""
        done = self.progress.epoch * self.steps_per_epoch + self.progress.step
        return done, self.epochs * self.steps_per_epoch

    def averages(self) -> dict[str, float]:
        """Means over the steps of the epoch so far, by name."""
        return {name: total / max(1, self.progress.step) for name, total in self.progress.totals.items()}

    def step_text(self, averages: Mapping[str, float]) -> str:
        """The averages as text."""
        return "  ".join(f"{name} {value:.4g}" for name, value in averages.items())

    def epoch_text(self, entry: Mapping[str, float]) -> str:
        """An epoch's numbers as text."""
        return self.step_text({name: value for name, value in entry.items() if name != "epoch"})

    def epoch_warnings(self) -> list[str]:
        """In rank 0: what is unhealthy after an epoch."""
        return []

    def add_histograms(self, writer: SummaryWriter, step: int) -> None:
        """In rank 0: add distributions to TensorBoard after an epoch."""

    def show_results(self, run_dir: RunDirectory, summary: Mapping[str, Any]) -> None:
        """In rank 0: print what came out."""

    def how_to_resume(self, run_dir: Path) -> str:
        """The sentence that says which command resumes the run."""
        command = command_line(self.kind, self.resume_flag, run_dir, launcher=self.processes.launcher)
        return f"Resume with: {command}"

    def out_of_memory(self, how_to_resume: str) -> str:
        """What to do where memory does not suffice."""
        return f"out of memory. The last saved state is intact. {how_to_resume}"
