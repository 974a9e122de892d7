"""The settings that every run has, and what is stored of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tfnas.core.errors import InputError

C = TypeVar("C")

SETTINGS = "settings"
"""What a checkpoint calls the run's whole configuration; those of earlier versions have none."""

LONGEST_TIMEOUT_SECONDS = 1e9  # what the library can count in nanoseconds


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run directory is created, where and how it computes, and how often it saves."""

    save: str = "runs"
    """Folder in which the run directory is created."""
    note: str = ""
    """Suffix for the name of the run directory."""
    run_dir: str | None = None
    """The run directory, instead of a new one under --save; it must be empty or not exist."""
    seed: int = 2
    """Seed of all random numbers."""
    device: str = "auto"
    """auto (the GPU of this process if there is one), cpu, cuda or cuda:N."""
    deterministic: bool = False
    """On a GPU, use only deterministic algorithms, so that a resumed run is bit-identical (slower)."""
    print_freq: int = 100
    """Number of steps between log lines."""
    save_minutes: float = 5.0
    """Minutes between checkpoints within an epoch, in addition to one at the end of every epoch."""
    local_rank: int | None = None
    """Passed by older launchers; not needed with torchrun."""
    rank_timeout: float = 600.0
    """Seconds after which an unresponsive process ends the run; a process that dies ends it at once."""

    def __post_init__(self) -> None:
        if self.print_freq < 1:
            raise InputError(f"print_freq must be 1 or more, got {self.print_freq}")
        if self.local_rank is not None and self.local_rank < 0:
            raise InputError(f"local_rank must be 0 or more, got {self.local_rank}")
        for name in ("save_minutes", "rank_timeout"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.rank_timeout > LONGEST_TIMEOUT_SECONDS:
            raise InputError(f"rank_timeout must be at most {LONGEST_TIMEOUT_SECONDS:g}, got {self.rank_timeout}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be 0 to 2**63 - 1, got {self.seed}")


RUN_MAY_CHANGE = frozenset(
    {"print_freq", "save_minutes", "run_dir", "save", "note", "local_rank", "rank_timeout", "device"}
)
"""Those of them that may differ between a run and its resumption."""

# The same of a differentiable search, which re-ranking reads too: what changes no result, paths (what they name is
# compared), and ways out of a failure. Every other setting is compared.
SEARCH_PATHS = ("space", "lookup_path", "img_root", "train_list", "val_list", "class_names")
SEARCH_RESCUES = frozenset({"w_lr", "a_lr", "grad_clip", "threads", "device"})
SEARCH_MAY_CHANGE = frozenset({*RUN_MAY_CHANGE, "resume", "workers", "low_memory", *SEARCH_PATHS, *SEARCH_RESCUES})


def recorded_settings(config: Any) -> dict[str, Any]:
    """The part of a configuration (a dataclass) that a checkpoint stores: all but the place of the run directory."""
    return {**dataclasses.asdict(config), "run_dir": None}


def fixed_settings(config: Any, may_change: Collection[str]) -> dict[str, Any]:
    """The part of a configuration (a dataclass) that a resumed run may not change."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in may_change}


def with_absolute_paths(config: C, names: Collection[str]) -> C:
    """The configuration with those of these paths that exist made absolute: a run may be resumed in another folder."""
    paths = {name: getattr(config, name) for name in names}
    absolute: dict[str, Any] = {
        name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).exists()
    }
    return dataclasses.replace(config, **absolute)  # type: ignore[type-var]
