"""Inputs of `latency close`, opened and checked before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.bench.benches import Bench, as_measured, open_bench, reference_case, table_conditions
from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.json_yaml import saved_fields
from tfnas.data.data_config import DataConfig
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import Conditions
from tfnas.runs.architecture_source import ArchitectureSource, read_source
from tfnas.runs.model_file import MODEL_FILE
from tfnas.runs.run_directory import CHECKPOINT_FOLDER, CONFIG_FILE, read_config, search_checkpoints
from tfnas.searching.refitting.refit_config import CloseConfig, RefitRunConfig
from tfnas.searching.refitting.refit_loop import Goal
from tfnas.utils.text import command_line, parse_seconds, parse_share

BenchOpener = Callable[[BenchmarkCase], Bench]

_MOST_MS = 1e9


@dataclass(frozen=True)
class RefitPlan:
    """Inputs of a refit, opened and checked."""

    config: RefitRunConfig
    source: ArchitectureSource
    table: LatencyTable
    goal: Goal
    bench: Bench
    clock: Callable[[], float]


def prepare(config: CloseConfig, opener: BenchOpener | None, clock: Callable[[], float]) -> RefitPlan:
    """Open and check the inputs; `opener` opens the bench. Raises InputError if they do not fit together."""
    run_dir = _run_directory(Path(config.model_path))
    saved = {} if run_dir is None else read_config(run_dir)
    _refuse_training(run_dir, saved)
    source = read_source(Path(config.model_path), None)
    if not isinstance(source.architecture, Architecture):
        raise InputError(
            f"{config.model_path}: the widths of networks of MBConv blocks are fitted, and this one is of the family "
            f"{source.architecture.family}"
        )
    target_ms = _target_ms(config, source)
    lookup_path = _lookup_path(config, source, saved)
    table = LatencyTable.load(lookup_path)
    conditions = table_conditions(table, config.device)
    measurement = table.contents.measurement
    if measurement is not None and measurement.worker and config.worker is None:
        raise InputError(
            f"{table.source} was measured on another machine ({measurement.device}): give the command to reach it "
            "with --worker"
        )
    table.architecture_ms(source.architecture)
    goal = Goal(
        target_ms=target_ms,
        epsilon=parse_share("epsilon", config.epsilon),
        iterations=config.iterations,
        seconds=parse_seconds("time_budget", config.time_budget),
    )
    reference = reference_case(source.architecture)
    with as_measured(table):
        bench = opener(reference) if opener else _bench(conditions, reference, config)
    return RefitPlan(_with_search(config, run_dir, saved, lookup_path), source, table, goal, bench, clock)


def _bench(conditions: Conditions, reference: BenchmarkCase, config: CloseConfig) -> Bench:
    """The bench. Every call counts, as in use, even one that was preempted by another program."""
    return open_bench(conditions, reference, config.worker, config.seed, config.worker_timeout, every_call=True)


def _target_ms(config: CloseConfig, source: ArchitectureSource) -> float:
    """The target of the flag, or else of the source, a file that may contain anything."""
    if config.target_lat is not None:
        return config.target_lat
    target_ms: Any = source.target_ms
    if target_ms is None:
        raise InputError(f"{config.model_path} names no target latency: give one with --target_lat, in milliseconds")
    if isinstance(target_ms, bool) or not isinstance(target_ms, int | float) or not 0 < target_ms < _MOST_MS:
        raise InputError(
            f"the target latency that {config.model_path} names must be a number of milliseconds above 0, got "
            f"{target_ms!r:.40}; --target_lat gives another"
        )
    return float(target_ms)


def _run_directory(path: Path) -> Path | None:
    """The run directory at a path or that contains it; None for a file elsewhere."""
    folders = [path, path.parent, *([path.parent.parent] if path.parent.name == CHECKPOINT_FOLDER else [])]
    return next((folder for folder in folders if (folder / CONFIG_FILE).is_file()), None)


def _refuse_training(run_dir: Path | None, saved: dict[str, Any]) -> None:
    if run_dir is not None and ("train_root" in saved or (run_dir / MODEL_FILE).exists()):
        raise InputError(
            f"{run_dir} is a training run: trained weights fix the widths. Run latency close on the search's run "
            f"directory and train the result; to time this one: "
            f"{command_line('latency certify', run_dir)}"
        )


def _lookup_path(config: CloseConfig, source: ArchitectureSource, saved: dict[str, Any]) -> str:
    """Path of the table: as given, or as named by the search's result or its configuration."""
    named = (config.lookup_path,) if config.lookup_path else (source.lookup_path, saved.get("lookup_path"))
    paths = [str(path) for path in named if path is not None]
    if not paths:
        raise InputError(
            f"{config.model_path} names no latency table, which determines how to time: give one with --lookup_path"
        )
    return next((path for path in paths if Path(path).is_file()), paths[0])


def _with_search(config: CloseConfig, run_dir: Path | None, saved: dict[str, Any], lookup_path: str) -> RefitRunConfig:
    """The configuration with the search's data, so that training finds it in the new directory too."""
    data = saved_fields(DataConfig, saved, f"{run_dir}/{CONFIG_FILE}")
    searched_in = saved.get("searched_in")
    if run_dir is not None and search_checkpoints(run_dir).saved():
        searched_in = str(run_dir.resolve())
    given = {item.name: getattr(config, item.name) for item in dataclasses.fields(CloseConfig)}
    given |= {"model_path": str(Path(config.model_path).resolve()), "lookup_path": str(Path(lookup_path).resolve())}
    return RefitRunConfig(**{**data, **given, "space": saved.get("space"), "searched_in": searched_in})
