"""`close_run`: the network that a search found, fitted until it measures its target, in a run directory of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tfnas.core.errors import Infeasible, InputError, Interrupted
from tfnas.runs.run_directory import (
    CONFIG_FILE,
    LOCK_FILE,
    LOG_FILE,
    SUMMARY_FILE,
    RunDirectory,
    read_config,
    run_path,
    watch_interruption,
)
from tfnas.searching.refitting.certificate import MeasuredUnder
from tfnas.searching.refitting.refit_config import CloseConfig
from tfnas.searching.refitting.refit_loop import Phase, TimedNetwork, refit_to_target
from tfnas.searching.refitting.refit_plan import BenchOpener, RefitPlan, prepare
from tfnas.searching.refitting.refit_text import (
    announcement,
    conclusion,
    next_steps,
    phase_text,
    point_line,
    refusal,
    summary,
)
from tfnas.utils.devices import load_average


@dataclass(frozen=True)
class RefitRun:
    """Where the new run directory is, and the numbers of its `summary.json`."""

    run_dir: Path
    summary: dict[str, Any]


def close_run(
    config: CloseConfig,
    console: Console | None = None,
    *,
    bench: BenchOpener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RefitRun:
    """Fit the widths of a network until it measures its target, and write what came out as a new run directory.

    `bench` opens what times (given the reference case); by default this machine, or the worker, in the table's
    runtime. `clock` tells the seconds of the time budget.

    Raises InputError (before anything is written), Interrupted (nothing is left behind), and Infeasible when the
    network is not certified within epsilon; the run directory then holds the nearest one and says so.
    """
    plan = prepare(config, bench, clock)
    path, or_another = run_path("close", config)
    console = console or Console()
    _check_unused(path, or_another, console)
    run = RunDirectory.create(path, or_another, plan.config, console)
    try:
        with run.locked():
            for line in announcement(plan, run.path):
                run.say(line)
            return _close(plan, run)
    except (Interrupted, KeyboardInterrupt):
        _remove_unfinished(run.path)
        raise


def _close(plan: RefitPlan, run: RunDirectory) -> RefitRun:
    started, load = time.monotonic(), _load(plan)

    def on_point(point: TimedNetwork) -> None:
        run.say(point_line(point, plan.goal))

    with (
        watch_interruption(run.console, "stopping after this network's calls") as watch,
        run.console.status("preparing", refresh_per_second=1) as status,  # a livelier one would disturb what is timed
    ):

        def on_phase(phase: Phase) -> None:
            status.update(phase_text(phase, plan.goal))

        def clock() -> float:  # read at every visit
            watch.raise_if_asked("nothing is kept; the same command begins anew")
            return plan.clock()

        closed = refit_to_target(plan.source.architecture, plan.table, plan.bench, plan.goal, on_point, clock, on_phase)
    after = _load(plan)
    under = MeasuredUnder.of(
        plan.bench.conditions,
        plan.bench.device_name,
        plan.bench.versions,
        instruction_sets=plan.bench.instruction_sets,
        worker=plan.config.worker is not None,
        load=None if load is None or after is None else (load, after),
    )
    numbers = summary(plan, closed, under, time.monotonic() - started)
    run.say_all(conclusion(plan, closed, under))
    run.write_architecture(closed.point.architecture)
    run.write_json(SUMMARY_FILE, numbers)
    run.say_all(next_steps(plan, closed, run.path))
    if closed.verdict != "inside":
        raise Infeasible(refusal(plan, closed, run.path))
    return RefitRun(run.path, numbers)


def _check_unused(path: Path, or_another: bool, console: Console) -> None:
    """Raise InputError for a directory that holds anything: what is there may be trained weights.

    What a closed loop that was killed has left there is removed: it holds no result. One that is still at work is left
    alone, which is an InputError too.
    """
    if not or_another and path.exists():
        if not path.is_dir():
            raise InputError(f"--run_dir {path} is a file; name a directory that does not exist yet")
        if _is_unfinished(path):
            with RunDirectory(path, console).locked():
                _remove_unfinished(path)
            return
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise InputError(f"--run_dir {path} is not empty, and nothing in it is changed: choose another")


def _is_unfinished(path: Path) -> bool:
    """Whether a directory holds the configuration of a closed loop, perhaps its log, and nothing else."""
    names = {entry.name for entry in path.iterdir()}
    return CONFIG_FILE in names <= {CONFIG_FILE, LOG_FILE, LOCK_FILE} and {"iterations", "epsilon"} <= set(
        read_config(path)
    )


def _remove_unfinished(path: Path) -> None:
    if _is_unfinished(path):
        for name in (LOG_FILE, LOCK_FILE, CONFIG_FILE):
            (path / name).unlink(missing_ok=True)
        path.rmdir()


def _load(plan: RefitPlan) -> float | None:
    """The host's load average of a minute; None for another machine, and where the system tells none."""
    return load_average() if plan.config.worker is None else None
