"""`close_run`: fits the widths of a searched network until it measures its target, in a run directory of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tfnas.core.errors import Infeasible, InputError, Interrupted
from tfnas.runs.endings import watch_interruption
from tfnas.runs.run_directory import CONFIG_FILE, LOCK_FILE, LOG_FILE, SUMMARY_FILE, RunDirectory, read_config, run_path
from tfnas.searching.refitting.certificate import MeasuredUnder, certificate_lines, verdict_text
from tfnas.searching.refitting.refit_config import CloseConfig
from tfnas.searching.refitting.refit_loop import Goal, Phase, RefitResult, TimedNetwork, refit_to_target
from tfnas.searching.refitting.refit_plan import BenchOpener, RefitPlan, prepare
from tfnas.spaces.families import architecture_counts
from tfnas.utils.devices import load_average
from tfnas.utils.text import clock, command_line, percent, short, typed


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
    """Fit the widths of a network until it measures its target, and write the result as a new run directory.

    `bench` opens the bench (given the reference case); by default this machine, or the worker, in the table's runtime.
    `clock` returns the seconds used by the time budget.

    Raises InputError (before anything is written), Interrupted (nothing is left behind), and Infeasible when the
    network is not certified within epsilon; the run directory then contains the nearest one.
    """
    plan = prepare(config, bench, clock)
    path, or_another = run_path("close", config)
    console = console or Console()
    _check_empty(path, or_another, console)
    run = RunDirectory.create(path, or_another, plan.config, console)
    try:
        with run.locked():
            for line in announcement(plan, run.path):
                run.say(line)
            return _refit(plan, run)
    except (Interrupted, KeyboardInterrupt):
        _remove_unfinished(run.path)
        raise


def _refit(plan: RefitPlan, run: RunDirectory) -> RefitRun:
    started, load = time.monotonic(), _load(plan)

    def on_timed(point: TimedNetwork) -> None:
        run.say(point_line(point, plan.goal))

    with (
        watch_interruption(run.console, "stopping after the current measurement") as watch,
        run.console.status("preparing", refresh_per_second=1) as status,  # a faster refresh would disturb the timing
    ):

        def on_phase(phase: Phase) -> None:
            status.update(phase_text(phase, plan.goal))

        def clock() -> float:  # called for every sample
            watch.raise_if_asked("nothing is saved; the same command starts over")
            return plan.clock()

        result = refit_to_target(plan.source.architecture, plan.table, plan.bench, plan.goal, on_timed, clock, on_phase)
    after = _load(plan)
    under = MeasuredUnder.of(
        plan.bench.conditions,
        plan.bench.device_name,
        plan.bench.versions,
        instruction_sets=plan.bench.instruction_sets,
        worker=plan.config.worker is not None,
        load=None if load is None or after is None else (load, after),
    )
    numbers = summary(plan, result, under, time.monotonic() - started)
    run.say_all(conclusion(plan, result, under))
    run.write_architecture(result.point.architecture)
    run.write_json(SUMMARY_FILE, numbers)
    run.say_all(next_steps(plan, result, run.path))
    if result.verdict != "inside":
        raise Infeasible(refusal(plan, result, run.path))
    return RefitRun(run.path, numbers)


def _check_empty(path: Path, or_another: bool, console: Console) -> None:
    """Raise InputError for a directory that contains anything, which may be trained weights.

    The remains of a killed run, which have no result, are removed. A run that is still active is an InputError too.
    """
    if not or_another and path.exists():
        if not path.is_dir():
            raise InputError(f"--run_dir {path} is a file; name a directory that does not exist yet")
        if _is_unfinished(path):
            with RunDirectory(path, console).locked():
                _remove_unfinished(path)
            return
        if any(not entry.name.startswith(".") for entry in path.iterdir()):
            raise InputError(f"--run_dir {path} is not empty: choose another directory")


def _is_unfinished(path: Path) -> bool:
    """Whether a directory contains the configuration of `latency close`, perhaps its log, and nothing else."""
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
    """The host's load average over a minute; None for a remote device, or if the system has none."""
    return load_average() if plan.config.worker is None else None


# ---- output ---------------------------------------------------------------------------------------------------------


def announcement(plan: RefitPlan, path: Path) -> list[str]:
    """First lines: the network, table and target, and the device."""
    measured, goal, table = plan.table.contents.measurement, plan.goal, plan.table
    here = plan.bench.device_name
    table_ms = table.architecture_ms(plan.source.architecture)
    lines = [
        f"run       {path}",
        f"network   {plan.source.kind} in {plan.config.model_path}; table latency {table_ms:.4g} ms",
        f"table     {table.description}",
        f"target    {goal.target_ms:g} ms within {100 * goal.epsilon:g} %, timed as a whole on {here}",
    ]
    if measured is not None and measured.device != here:
        lines.append(
            f"warning: the table was measured on {measured.device}, this is {here}: the certificate "
            "applies to the latter, and widths are fitted with the former's table scaled to the measurement"
        )
    fingerprint = plan.source.table_fingerprint
    if fingerprint is not None and fingerprint != table.fingerprint:
        lines.append("note: this table is not the one of the search, or has changed since")
    return [*lines, *(f"note: {note}" for note in plan.source.notes)]


def phase_text(phase: Phase, goal: Goal) -> str:
    """Text of the progress display: what is timed now."""
    what = f"fit {phase.number} of at most {goal.iterations}" if phase.purpose == "fit" else "for the certificate"
    return f"timing the network, {what}; at most {clock(phase.most_seconds)}, not counting preparation"


def point_line(point: TimedNetwork, goal: Goal) -> str:
    """One line per measurement."""
    low, high = point.found.interval_ms
    interval = f"{low:.4g} to {high:.4g} ms; " if point.purpose == "certify" else ""
    return (
        f"{'timed' if point.purpose == 'fit' else 'certify':<10}table {point.table_ms:.4g} ms, measured "
        f"{point.found.median_ms:.4g} ms ({interval}{point.found.runs} runs): "
        f"{percent(100 * (point.found.median_ms / goal.target_ms - 1))} from the target"
    )


def summary(plan: RefitPlan, result: RefitResult, under: MeasuredUnder, seconds: float) -> dict[str, Any]:
    """Contents of `summary.json`."""
    point, goal, source = result.point, plan.goal, plan.source
    counts = architecture_counts(point.architecture)
    return {
        "cost": "ms",
        "target_ms": goal.target_ms,
        "table_ms": point.table_ms,
        "measured_ms": point.found.median_ms,
        "error_percent": 100 * (point.found.median_ms / goal.target_ms - 1),
        "epsilon": goal.epsilon,
        "verdict": result.verdict,
        "supported_epsilon": point.found.supported_epsilon(goal.target_ms),
        "certificate": {**point.found.to_json(), "conditions": under.to_json()},
        "certificates": result.certificates,
        "ending": result.ending,
        "widths_reach_ms": list(result.bounds_ms),
        "params": counts.params,
        "macs": counts.macs,
        "top1": None,
        "architecture": point.architecture.to_text(),
        "architecture_before": source.architecture.to_text(),
        "seed": plan.config.seed,
        "seconds": {"calls": sum(found.found.seconds for found in result.history), "total": seconds},
        "data": plan.config.data,
        "space": plan.config.space,
        "num_classes": point.architecture.num_classes,
        "image_size": point.architecture.image_size,
        "lookup_path": plan.config.lookup_path,
        "table_fingerprint": plan.table.fingerprint,
        "table_description": plan.table.description,
        "history": [found.to_json() for found in result.history],
    }


def conclusion(plan: RefitPlan, result: RefitResult, under: MeasuredUnder) -> list[str]:
    """Lines on the certificate and the target."""
    first, *more = certificate_lines(result.point.found)
    counts = architecture_counts(result.point.architecture)
    words = verdict_text(result.point.found, plan.goal.target_ms, plan.goal.epsilon)
    return [
        "",
        f"measured  {first}",
        *(f"          {line}" for line in more),
        f"          {under.description}",
        f"          {_certificates(result)}",
        f"target    {words}",
        f"network   {short(counts.params)} parameters, {short(counts.macs)} MACs",
    ]


def next_steps(plan: RefitPlan, result: RefitResult, path: Path) -> list[str]:
    """Last lines: the files, and the command to train the result, with the search's weights if they are there."""
    searched_in = plan.config.searched_in
    inherits = searched_in is not None and Path(searched_in).is_dir()
    lines = [f"files     {typed(path)}: architecture.json, model.config, summary.json, config.yaml, log.txt"]
    if result.verdict == "inside":
        lines.append(f"next      {command_line('train', '--inherit' if inherits else '--model_path', path)}")
    return lines


def refusal(plan: RefitPlan, result: RefitResult, path: Path) -> str:
    """Message of Infeasible: why the network is not certified, the closest result, and what might help."""
    goal, found = plan.goal, result.point.found
    low, high = result.bounds_ms
    text = f"{verdict_text(found, goal.target_ms, goal.epsilon)}. "
    text += (
        f"The closest result was {found.median_ms:.4g} ms; {result.ending}. Widths alone reach about {low:.4g} to "
        f"{high:.4g} ms"
        f"{'' if low < goal.target_ms < high else ': changing operations and depths takes a new search'}. "
    )
    if result.verdict != "outside" and found.half_width > goal.epsilon / 2:
        text += "A quieter machine or a longer --time_budget narrows the interval. "
    of_it = "The nearest network" if result.certificates == 1 else "The network that was certified last"
    return f"{text}{_certificates(result).capitalize()}. {of_it} and its certificate are in {typed(path)}"


def _certificates(result: RefitResult) -> str:
    """How many certificates were made: with several, one may pass by chance."""
    if result.certificates == 1:
        return "one certificate was made"
    return f"{result.certificates} certificates were made, each for a different network; this is the last"
