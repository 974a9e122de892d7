"""Retraining, from a configuration to a trained network in a file.

    result = retrain(TrainConfig(model_path="runs/search-20260131-120000"))

`result.run_dir` holds all files; `tfnas.load(result.run_dir)` is the network. Under torchrun every process calls this.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tfnas.data.images import ImageSet
from tfnas.data.loading import EpochBatches, ImageLoader, kept_workers, loader
from tfnas.nn.classification_metrics import ClassificationMetrics
from tfnas.runs.distributed import distributed_context
from tfnas.runs.endings import (
    Interruption,
    Remains,
    end_together,
    handle_errors,
    report_once,
    report_peer_failure,
    watch_interruption,
)
from tfnas.runs.resumption import changed_settings
from tfnas.runs.run_directory import RunDirectory, run_path
from tfnas.runs.session import newest_state
from tfnas.training.inherit import ESTIMATION_IMAGES, inherit_weights, settle_batch_norm
from tfnas.training.train_conclusion import conclude
from tfnas.training.train_config import RESCUES, TrainConfig
from tfnas.training.train_reporter import Reporter
from tfnas.training.train_resuming import resumed_run
from tfnas.training.train_session import Session, start_session, train_checkpoints
from tfnas.training.train_setup import Setup, effective, prepare
from tfnas.utils.progress import waiting
from tfnas.utils.text import command_line
from tfnas.utils.torch_settings import runtime_settings


@dataclass(frozen=True)
class TrainResult:
    """What retraining returns: where the run's files are, and the numbers of `summary.json`."""

    run_dir: Path
    summary: dict[str, Any]


def retrain(
    config: TrainConfig,
    console: Console | None = None,
    given: Collection[str] | None = None,
    program: str = "train_eval_amp.py",
) -> TrainResult:
    """Train a network, or go on with the run that `config.snapshot` names.

    `given` names the settings that were said, which go before those of the run that is named or resumed; by default
    those that differ from their defaults. `program` is the name of the one that was started.

    Raises InputError (before anything is written), RunFailed and Interrupted (state saved).
    """
    run_dir = remark = None
    if config.snapshot is not None:
        config, run_dir, remark = resumed_run(config, given, program)
    with (
        distributed_context(config.device, config.local_rank, config.rank_timeout) as processes,
        _own_randomness(processes.device),
    ):
        console = (console or Console()) if processes.is_rank_zero else Console(quiet=True)
        with waiting(console, "opening the network and the images"):
            setup = processes.barrier(lambda: prepare(config, processes, run_dir, given))
        made = processes.barrier(lambda: _run_directory(setup, run_dir, console) if processes.is_rank_zero else None)
        path = processes.broadcast_bytes(None if made is None else str(made.path).encode())
        run = made or RunDirectory(Path((path or b"").decode()), console)
        how = runtime_settings(setup.recipe.threads, config.deterministic, float32=config.opt_level == "O0")
        with ExitStack() as lock, how, kept_workers(), watch_interruption(console) as interruption:
            processes.barrier(lambda: lock.enter_context(run.locked(exclusive=processes.is_rank_zero)))
            if remark is not None and processes.is_rank_zero:
                run.say(remark)
            return _Training(setup, run, interruption).run()


class _Training:
    """One process's part of a run: trains a session; the first process reports and saves."""

    def __init__(self, setup: Setup, run: RunDirectory, interruption: Interruption) -> None:
        self.setup, self.run_dir, self.interruption = setup, run, interruption
        self.processes = setup.processes
        self.checkpoints = train_checkpoints(run.path)
        self.session: Session
        self.saved_at = time.monotonic()
        resume = command_line("train", "--snapshot", run.path, launcher=self.processes.launcher)
        self.how_to_resume = f"Resume with: {resume}"
        self.remains = Remains(self.checkpoints, self.how_to_resume)

    def run(self) -> TrainResult:
        """All epochs that are left, then the conclusion."""
        with (
            report_once(self.processes),
            handle_errors(self.interruption, self.remains, self._out_of_memory()),
            report_peer_failure(self.processes, self.interruption, self.remains),
        ):
            with waiting(self.run_dir.console, "preparing the weights"):
                self._begin()
            with Reporter(self.session, self.run_dir, self.processes.is_rank_zero) as reporter:
                reporter.announce()
                self._judge_inherited(reporter)
                while self.session.epoch < self.setup.recipe.epochs:
                    self._train_epoch(reporter)
                    reporter.show_epoch(self.session.finish_epoch(self._evaluate()))
                    self._save()
                summary = conclude(self.session, self.run_dir)
        return TrainResult(self.run_dir.path, summary)

    def _begin(self) -> None:
        """Stand at the newest readable checkpoint, or at the beginning, which is saved: the disk takes it."""
        self.session = start_session(self.setup)
        saved = newest_state(self.checkpoints, self.processes, self.run_dir.say)
        if saved is None:
            search = self.setup.config.inherit
            if search is not None:
                self.processes.barrier(lambda: inherit_weights(self.session, Path(search)))
                settle_batch_norm(self.session, self._estimation_batches())
            self._save()
            return
        self.processes.barrier(lambda: self.session.restore(saved[0]))
        if not self.processes.is_rank_zero:
            return
        self.run_dir.write_config(effective(self.setup))  # with what may have changed, now that all of it fits
        changed = changed_settings(self.setup.config, saved[0], RESCUES)
        if changed is not None:
            self.run_dir.say(f"going on with {changed}")
        epochs = self.setup.recipe.epochs
        if self.session.epoch == epochs:
            self.run_dir.say(f"all {epochs} epochs of this run are done: writing its results again")
        else:
            self.run_dir.say(f"resumed at epoch {self.session.epoch + 1}/{epochs}, step {self.session.step}")

    def _train_epoch(self, reporter: Reporter) -> None:
        session = self.session
        waiting = time.perf_counter()
        for images, labels in self._batches(self.setup.data.train, first=session.step, shuffle=True):
            start = time.perf_counter()
            session.spend("data", start - waiting)
            stop = session.train(images, labels, self.interruption.signal is not None)
            session.spend("training", time.perf_counter() - start)
            reporter.show_step()
            if stop:
                self._save()
                end_together(self.interruption, self.how_to_resume)
            if time.monotonic() - self.saved_at > 60 * self.setup.config.save_minutes:
                self._save()
            waiting = time.perf_counter()

    def _save(self) -> None:
        """Save the state; all processes have the same, so the first one alone does it."""
        start = time.monotonic()
        self.session.check_finite()
        if self.processes.is_rank_zero:
            self.checkpoints.save(self.session.state(), self.session.epoch, self.session.step)
        self.saved_at = time.monotonic()
        self.session.spend("saving", self.saved_at - start)

    def _evaluate(self) -> ClassificationMetrics | None:
        images = self.setup.data.validation
        if images is None:
            return None
        start = time.perf_counter()
        scores = self.session.evaluate(self._interruptible(self._batches(images, shuffle=False)))
        self.session.spend("judging", time.perf_counter() - start)
        return scores

    def _judge_inherited(self, reporter: Reporter) -> None:
        """Once, before any training: what the inherited weights are worth."""
        session = self.session
        if self.setup.config.inherit is None or session.inherited or (session.epoch, session.step) != (0, 0):
            return
        scores = self._evaluate()
        session.inherited = {} if scores is None else {"top1": scores.top1, "top5": scores.top5, "loss": scores.loss}
        reporter.show_inherited()

    # ---- batches ----------------------------------------------------------------------------------------------

    def _batches(self, images: ImageSet, *, shuffle: bool, first: int = 0) -> ImageLoader:
        """Of an epoch's training images, shuffled and in whole batches; or all images in their own order."""
        batches = EpochBatches(
            len(images),
            batch_size=self.setup.recipe.batch_size,
            epoch=self.session.epoch if shuffle else 0,
            seed=self.setup.config.seed if shuffle else None,
            first_batch=first,
            share=self.processes.share,
            whole=shuffle,
        )
        return loader(images, batches, workers=self.setup.data.workers, device=self.processes.device)

    def _interruptible(self, batches: ImageLoader) -> Iterator[tuple[Tensor, Tensor]]:
        """Judging need not end first when one process is all there is; several judge to the end together."""
        for images, labels in batches:
            if self.processes.world_size == 1:
                self.interruption.raise_if_asked(self.remains())
            yield images, labels

    def _estimation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Training batches to estimate batch norm's statistics on, thousands of images."""
        most = -(-ESTIMATION_IMAGES // self.setup.recipe.batch_size)
        for _, (images, labels) in zip(range(most), self._batches(self.setup.data.train, shuffle=True), strict=False):
            yield images, labels

    def _out_of_memory(self) -> str:
        size, pieces = self.setup.recipe.batch_size, 2 * self.setup.config.accumulate
        return (
            f"out of memory at batch size {size} over {self.processes.world_size} process(es). What was saved before "
            f"is kept, but a run keeps its batch size: start a new one with --accumulate {pieces} "
            f"(the same batch in smaller pieces), --batch_size {size // 2}, or a smaller --image_size"
        )


def _run_directory(setup: Setup, run_dir: Path | None, console: Console) -> RunDirectory:
    """The run's directory; a new one is made, with the architecture in it."""
    if run_dir is not None:
        return RunDirectory(run_dir, console)
    run = RunDirectory.create(*run_path("train", setup.config), effective(setup), console, resume_flag="--snapshot")
    run.write_architecture(setup.architecture)
    return run


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Steps seed PyTorch's global generators; afterwards these are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
