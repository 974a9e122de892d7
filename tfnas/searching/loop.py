"""The search, from a configuration to an architecture that meets its target (TF-NAS, algorithm 1).

    result = search(SearchConfig(target_lat=15))

`result.architecture` is what to build, `result.run_dir` holds all files.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from tfnas.architecture import Architecture
from tfnas.computing import computing
from tfnas.data import EpochBatches, data_name, loader
from tfnas.endings import LAST_KEPT, told_endings
from tfnas.errors import InputError
from tfnas.resumption import resumed_config, with_absolute_paths
from tfnas.run import Interruption, RunDirectory, run_path, watch_interruption
from tfnas.searching.checkpoint import search_checkpoints
from tfnas.searching.conclude import conclude
from tfnas.searching.config import SearchConfig
from tfnas.searching.report import Reporter
from tfnas.searching.schedules import trains_architecture
from tfnas.searching.session import MAY_CHANGE, PATHS, Session, start_session
from tfnas.searching.setup import Setup, prepare
from tfnas.space_file import space_names
from tfnas.wording import typed


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
    console = console or Console()
    if config.resume is not None:
        run, saved = RunDirectory.open(Path(config.resume), console)
        setup = prepare(resumed_config(config, saved, given, may_change=MAY_CHANGE))
    else:
        setup = prepare(config)
        run = RunDirectory.create(*run_path("search", config), _effective(setup), console)
    with (
        run.locked(),
        computing(setup.schedule.threads, setup.config.deterministic),
        watch_interruption(console) as interruption,
    ):
        return _Search(setup, run, interruption).run()


class _Search:
    """One process's part of a run: trains a session, reports and saves."""

    def __init__(self, setup: Setup, run: RunDirectory, interruption: Interruption) -> None:
        self.setup, self.run_dir, self.interruption = setup, run, interruption
        self.checkpoints = search_checkpoints(run.path)
        self.session: Session
        self.saved_at = time.monotonic()
        self.how_to_resume = f"Resume with: python train_search.py --resume {typed(run.path)}"

    def run(self) -> SearchResult:
        """All epochs that are left, then the conclusion."""
        with told_endings(self.interruption, self.how_to_resume, self._out_of_memory()):
            self._begin()
            with Reporter(self.session, self.run_dir) as reporter:
                reporter.announce(self._first_batch)
                while self.session.epoch < self.setup.schedule.epochs:
                    self._train_epoch(reporter)
                    reporter.show_epoch(self.session.finish_epoch(self._held_out_once()))
                    self._save()
                    self.interruption.raise_if_asked(f"the state is saved. {self.how_to_resume}")
                architecture, summary = conclude(self.session, self.run_dir, self._held_out_once)
        return SearchResult(architecture, self.run_dir.path, summary)

    def _begin(self) -> None:
        """Stand at the newest readable checkpoint, or save the beginning, which also shows that the disk takes it."""
        self.session = start_session(self.setup)
        if not self.checkpoints.prepare():
            self._save()
            return
        state, path, problems = self.checkpoints.load_latest()
        for problem in problems:
            self.run_dir.say(f"warning: {problem}; using the one before")
        self.checkpoints.set_aside(path)
        self.session.restore(state)
        self.run_dir.write_config(_effective(self.setup))  # with what may have changed, now that all of it fits
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
        for images, labels in self._batches(self.setup.data.weights, turn=session.epoch, first=session.step):
            start = time.perf_counter()
            session.spend("data", start - waiting)
            session.train_weights(images, labels)
            session.spend("weights", time.perf_counter() - start)
            if trains_architecture(self.setup.schedule, session.epoch) and session.step % 2 == 0:
                start = time.perf_counter()
                held_out = held_out or self._held_out(session.step // 2)
                session.train_architecture(*next(held_out))
                session.spend("architecture", time.perf_counter() - start)
            session.step += 1
            reporter.show_step()
            self._save_if_due()
            waiting = time.perf_counter()

    def _save_if_due(self) -> None:
        if self.interruption.signal is not None:
            self._save()
            self.interruption.raise_if_asked(f"the state is saved. {self.how_to_resume}")
        if time.monotonic() - self.saved_at > 60 * self.setup.config.save_minutes:
            self._save()

    def _save(self) -> None:
        start = time.monotonic()
        self.session.check_finite()
        self.checkpoints.save(self.session.state(), self.session.epoch, self.session.step)
        self.saved_at = time.monotonic()
        self.session.spend("saving", self.saved_at - start)

    # ---- batches ----------------------------------------------------------------------------------------------

    def _batches(self, images: Any, *, turn: int, first: int = 0, shuffle: bool = True) -> Any:
        batches = EpochBatches(
            len(images),
            batch_size=self.setup.schedule.batch_size,
            epoch=turn,
            seed=self.setup.config.seed if shuffle else None,
            first_batch=first,
        )
        return loader(images, batches, workers=self.setup.data.workers)

    def _held_out(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the architecture part from number `first` of this epoch on, over and over in new orders."""
        images, batch_size = self.setup.data.architecture, self.setup.schedule.batch_size
        per_turn = -(-len(images) // batch_size)
        turns_per_epoch = self.setup.steps_per_epoch  # more than an epoch can need
        turn, first = divmod(first, per_turn)
        while True:
            yield from self._batches(images, turn=self.session.epoch * turns_per_epoch + turn, first=first)
            turn, first = turn + 1, 0

    def _held_out_once(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The architecture part in its own order, for judging; an interruption need not wait for the end."""
        for batch in self._batches(self.setup.data.architecture, turn=0, shuffle=False):
            self.interruption.raise_if_asked(f"{LAST_KEPT}. {self.how_to_resume}")
            yield batch

    def _first_batch(self) -> tuple[Tensor, Tensor]:
        for images, labels in self._batches(self.setup.data.weights, turn=self.session.epoch):
            return self.session.place(images, labels)
        raise InputError("the weight part holds no image")

    def _out_of_memory(self) -> str:
        batch_size = self.setup.schedule.batch_size
        return (
            f"out of memory at batch size {batch_size}. What was saved before is kept, but a run keeps its batch size: "
            f"start a new one with a smaller --image_size or --batch_size, for instance --batch_size {batch_size // 2}"
        )


def _effective(setup: Setup) -> SearchConfig:
    """The configuration with every default of the space written out."""
    values: dict[str, Any] = {
        field.name: getattr(setup.schedule, field.name)
        for field in dataclasses.fields(setup.schedule)
        if field.name in {item.name for item in dataclasses.fields(SearchConfig)}
    }
    values["cost"] = setup.table.cost.name
    config = dataclasses.replace(
        setup.config,
        **values,
        data=data_name(setup.config),
        space=setup.config.space or setup.space.name,
        lookup_path=setup.lookup_path,
        width_multiple=setup.space.width_multiple,
        device=str(setup.device),
        resume=None,
    )
    named = {"space"} if config.space in space_names() else set()  # a folder may be called like a built-in space
    return with_absolute_paths(config, set(PATHS) - named)
