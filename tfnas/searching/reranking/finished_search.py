"""A finished search opened for re-ranking: its distribution, table, target, data and checkpoint, all checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.core.cost import COUNTED, Cost
from tfnas.core.errors import InputError
from tfnas.core.json_yaml import saved_fields
from tfnas.core.space import SearchSpace
from tfnas.data.data_config import DataConfig
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.counted_table import counted_table
from tfnas.latency.reachable import Band
from tfnas.runs.architecture_source import DERIVED, read_summary
from tfnas.runs.resumption import merged_settings
from tfnas.runs.run_directory import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    SUMMARY_FILE,
    UnreadableConfig,
    read_config,
    saved_choice,
    search_checkpoints,
)
from tfnas.runs.run_settings import SEARCH_MAY_CHANGE, SETTINGS
from tfnas.utils.text import command_line


@dataclass(frozen=True)
class FinishedSearch:
    """A finished search. `summary` is that of its run directory, `batch_size` that of its evaluation."""

    run_dir: Path
    summary: dict[str, Any]
    derived: Architecture
    choice: Choice
    table: LatencyTable
    target: float
    data: DataConfig
    data_fingerprint: str
    seed: int
    batch_size: int
    checkpoint: Path
    checkpoint_digest: str
    warnings: tuple[str, ...]

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.choice.space

    @property
    def cost(self) -> Cost:
        """What the target is of."""
        return self.table.cost


def open_search(model_path: str, lookup_path: str | None) -> FinishedSearch:
    """Open a finished search and check that it can be re-ranked. Raises InputError if it cannot."""
    run_dir = _run_directory(Path(model_path))
    written = _written_config(run_dir)
    _check_search(run_dir, written)
    summary = read_summary(run_dir)
    if not summary:
        raise InputError(
            f"the search in {run_dir} is not finished, so its result is not yet fitted to the target: finish it first "
            f"({command_line('search', '--resume', run_dir)})"
        )
    state, checkpoint, problems = search_checkpoints(run_dir).load_latest()
    saved = merged_settings(written, state.get(SETTINGS, {}), run_dir, may_change=SEARCH_MAY_CHANGE)
    choice = saved_choice(state)
    table = _table(summary, saved, lookup_path, choice.space)
    if table.fingerprint != summary.get("table_fingerprint"):
        raise InputError(
            f"{table.source} is not the one that {run_dir} was searched with, or it has changed since: candidates "
            "would have another latency than the derived network. Give that table with --lookup_path, or search again"
        )
    derived = _derived(summary, run_dir)
    return FinishedSearch(
        run_dir=run_dir,
        summary=summary,
        derived=derived,
        choice=choice,
        table=table,
        target=_checked_target(table, summary, derived, run_dir),
        data=DataConfig(**saved_fields(DataConfig, saved, str(run_dir / CONFIG_FILE))),
        data_fingerprint=state["data_fingerprint"],
        seed=_integer(saved, "seed", run_dir),
        batch_size=_integer(saved, "batch_size", run_dir),
        checkpoint=checkpoint,
        checkpoint_digest=hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16],
        warnings=tuple(f"{problem}; using the previous one" for problem in problems),
    )


def _run_directory(path: Path) -> Path:
    """The run directory at a path, or that contains it."""
    if not path.exists():
        raise InputError(f"there is no {path}: give the run directory of a finished search")
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == CHECKPOINT_FOLDER else path.parent


def _written_config(run_dir: Path) -> dict[str, Any]:
    """Contents of config.yaml; empty if it is unreadable but there is a checkpoint, which has the settings too."""
    try:
        return read_config(run_dir)
    except UnreadableConfig:
        if not search_checkpoints(run_dir).saved():
            raise
        return {}


def _check_search(run_dir: Path, saved: Mapping[str, Any]) -> None:
    if saved.get("searched_in") is not None:
        raise InputError(
            f"{run_dir} is a result of latency close, whose target refers to the measured network, not to the table: "
            f"re-rank the search ({saved['searched_in']}), then run latency close on the selected network"
        )
    if not search_checkpoints(run_dir).saved():
        raise InputError(
            f"{run_dir} contains no checkpoint of a search: candidates are sampled from the learned distribution, so "
            "give the run directory of a search"
        )


def _table(
    summary: Mapping[str, Any], saved: Mapping[str, Any], lookup_path: str | None, space: SearchSpace
) -> LatencyTable:
    """The table at `lookup_path`, or else the search's own as named by its result or its configuration."""
    if lookup_path is not None:
        return LatencyTable.load(lookup_path)
    named = [str(path) for path in (summary.get("lookup_path"), saved.get("lookup_path")) if path is not None]
    if not named:
        cost = summary.get("cost")
        if cost not in COUNTED:
            raise InputError("the search names no latency table: give it with --lookup_path")
        return counted_table(space, cost)
    return LatencyTable.load(next((path for path in named if Path(path).is_file()), named[0]))


def _derived(summary: Mapping[str, Any], run_dir: Path) -> Architecture:
    """The architecture that the search returned, even if another was selected by rank since."""
    numbers = summary.get(DERIVED, summary)
    text = numbers.get("architecture") if isinstance(numbers, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{run_dir / SUMMARY_FILE} does not contain the architecture of the search")
    return Architecture.parse(text)


def _checked_target(table: LatencyTable, summary: Mapping[str, Any], derived: Architecture, run_dir: Path) -> float:
    """The target of a summary, a file that may contain anything; the derived architecture must be in its band."""
    name = table.cost.target_key
    target = summary.get(name)
    if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target < math.inf:
        raise InputError(f"{run_dir / SUMMARY_FILE}: {name} must be a number above 0, got {target!r}")
    reached = table.architecture_ms(derived)
    if not Band.of(target).holds(reached):
        raise InputError(
            f"{run_dir}: the derived architecture takes {table.quantity(reached, 6)}, outside the band of the target "
            f"{table.quantity(target, 6)}: its files belong to different searches"
        )
    return float(target)


def _integer(saved: Mapping[str, Any], name: str, run_dir: Path) -> int:
    value = saved.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{run_dir / CONFIG_FILE}: {name} must be a whole number, got {value!r}")
    return value
