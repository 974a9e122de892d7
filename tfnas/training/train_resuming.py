"""Resuming a training run: which one --snapshot means, and that what the user names now is what it had."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tfnas.core.architecture import RUN_FILE
from tfnas.core.errors import InputError
from tfnas.runs.architecture_source import path_source
from tfnas.runs.checkpoint import FOLDER, Checkpoints
from tfnas.runs.resumption import resumed_config, saved_settings
from tfnas.runs.run_directory import CONFIG_FILE
from tfnas.spaces.families import load_architecture
from tfnas.training.train_config import KIND, MAY_CHANGE, TrainConfig
from tfnas.training.train_setup import at_its_search

FLOAT32_PROGRAM = "train_eval.py"


def resumed_run(
    config: TrainConfig, given: Collection[str] | None, program: str
) -> tuple[TrainConfig, Path, str | None]:
    """The run's own configuration, with what was said now where that may change, its directory, and a remark on both.

    Raises InputError where there is no such run, or where something else is named than it had.
    """
    assert config.snapshot is not None
    run_dir = run_of_snapshot(config.snapshot)
    saved = saved_settings(run_dir, Checkpoints(run_dir, KIND), TrainConfig, may_change=MAY_CHANGE)
    config = resumed_config(config, saved.current, given, may_change=MAY_CHANGE)
    if program == FLOAT32_PROGRAM and config.opt_level != "O0":
        raise InputError(
            f"the run computes in {config.opt_level}, {program} in float32 only: resume with train_eval_amp.py, or use "
            "--opt_level O0 to change it"
        )
    return _with_own_sources(config, saved.begun_with, run_dir), run_dir, saved.remark


def run_of_snapshot(snapshot: str) -> Path:
    """The run directory that --snapshot names, itself or by a checkpoint in it."""
    path = Path(snapshot)
    if os.path.isdir(path):  # noqa: PTH112 - answers "no" where Path.is_dir raises
        return path
    if not os.path.isfile(path):  # noqa: PTH113
        raise InputError(f"--snapshot {path}: there is no such run directory or checkpoint")
    if path.parent.name != FOLDER:
        raise InputError(
            f"--snapshot {path} is not in a run directory of this program; a trained network's weights alone do not "
            "say how to go on"
        )
    newest = Checkpoints(path.parent.parent, KIND).saved()[:1]
    if newest != [path]:
        raise InputError(f"--snapshot {path} is not the run's newest checkpoint; --snapshot {path.parent.parent} is")
    return path.parent.parent


def _with_own_sources(config: TrainConfig, saved: Mapping[str, Any], run_dir: Path) -> TrainConfig:
    """The configuration with the run's own architecture and weights, once those named now are found to be the same."""
    config = at_its_search(config)
    for name in ("model_path", "config_path"):
        said, own = getattr(config, name), saved.get(name)
        if said is not None and not _same_place(said, own):
            _check_architecture(f"--{name}", said, run_dir)
    said, own = config.inherit, saved.get("inherit")
    if said is not None and not _same_place(said, own) and (own is None or os.path.exists(own)):  # noqa: PTH110
        began = "fresh weights" if own is None else f"those of {own}"
        raise InputError(
            f"--inherit {said}: the run began with {began}; omit the flag, correct inherit in {CONFIG_FILE} if it "
            "stands there, or start a new run"
        )
    return dataclasses.replace(
        config, inherit=said or own, model_path=saved.get("model_path"), config_path=saved.get("config_path")
    )


def _same_place(said: str, own: str | None) -> bool:
    return own is not None and os.path.realpath(said) == os.path.realpath(own)


def _check_architecture(flag: str, path: str, run_dir: Path) -> None:
    """Raise InputError unless the file or directory holds the architecture that the run trains."""
    if not os.path.isfile(run_dir / RUN_FILE):  # noqa: PTH113 - it was stopped before it was written
        return
    own, other = load_architecture(run_dir / RUN_FILE), path_source(path).architecture
    other = other.adapted(image_size=own.image_size, num_classes=own.num_classes)
    if other != own:
        raise InputError(
            f"{flag} {path} holds another architecture than the run trains: omit the flag, or start a new run"
        )
