"""Resuming a run: its own settings, and which of them may change."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tfnas.core.errors import InputError, RunFailed
from tfnas.core.json_yaml import field_types
from tfnas.runs.run_directory import CONFIG_FILE, Checkpoints, State, UnreadableConfig, read_config
from tfnas.runs.run_settings import SETTINGS
from tfnas.utils.text import typed

C = TypeVar("C")


@dataclass(frozen=True)
class SavedSettings:
    """The settings of an interrupted run by name.

    `current` are those to go on with: of config.yaml, and what it lacks of the newest checkpoint. `begun_with` are
    those of the checkpoint: only what may change differs. `remark` says what came from there.
    """

    current: dict[str, Any]
    begun_with: dict[str, Any]
    remark: str | None = None


def saved_settings(
    run_dir: Path, checkpoints: Checkpoints, config_class: type[Any], *, may_change: Collection[str]
) -> SavedSettings:
    """The settings in config.yaml, compared with those in the newest readable checkpoint, which has them all.

    Where config.yaml is gone or cannot be read, all are those of the checkpoint. Before the first checkpoint,
    config.yaml must have all. With a checkpoint of an earlier version nothing is compared, and what config.yaml lacks
    is left out here.

    Raises InputError for a setting that is unknown, of a wrong type, missing, or not what the run was saved with and
    not among those that may change; RunFailed where the checkpoints cannot be read.
    """
    unreadable, written = None, {}
    try:
        written = _checked(read_config(run_dir), config_class, f"the run's {CONFIG_FILE}")
    except UnreadableConfig as error:
        unreadable = error
    recorded = _recorded(checkpoints, config_class)
    if unreadable is not None and not recorded:
        raise unreadable
    if recorded is None:
        _refuse_missing([name for name in field_types(config_class) if name not in written], run_dir)
        recorded = {}
    current = merged_settings(written, recorded, run_dir, may_change=may_change)
    return SavedSettings(current, {**current, **recorded}, _restored_text(unreadable is not None, written, recorded))


def _restored_text(unreadable: bool, written: Mapping[str, Any], recorded: Mapping[str, Any]) -> str | None:
    if unreadable:
        return f"warning: {CONFIG_FILE} cannot be read; the settings are those of the newest checkpoint"
    restored = [name for name in recorded if name not in written]
    return f"warning: {CONFIG_FILE} lacks {', '.join(restored)}: as in the newest checkpoint" if restored else None


def merged_settings(
    written: Mapping[str, Any], recorded: Mapping[str, Any], run_dir: Path, *, may_change: Collection[str]
) -> dict[str, Any]:
    """The settings in config.yaml, those it lacks from a checkpoint's. Raises InputError where both differ."""
    differing = [
        f"{name} {value!r} ({recorded[name]!r} when it was saved)"
        for name, value in written.items()
        if name not in may_change and value != recorded.get(name, value)
    ]
    if differing:
        path = run_dir / CONFIG_FILE
        raise InputError(
            f"{path} contains {', '.join(differing)}, but the settings of a run cannot change: correct it, or "
            f"remove it (rm {typed(path)}) to use the settings of the checkpoint"
        )
    return {**recorded, **written}


def changed_settings(config: Any, state: State, names: Collection[str]) -> str | None:
    """Those of the named settings that differ from a checkpoint's, in words; None where none does, or it has none."""
    saved, now = state.get(SETTINGS, {}), dataclasses.asdict(config)
    changed = [name for name in sorted(names) if name in saved and saved[name] != now[name]]
    return ", ".join(f"{name} {now[name]} ({saved[name]} when it was saved)" for name in changed) or None


def _recorded(checkpoints: Checkpoints, config_class: type[Any]) -> dict[str, Any] | None:
    """The settings in the newest readable checkpoint; empty if it is of an earlier version, None if there is none."""
    try:
        if not checkpoints.saved():
            return None
        state, path, _ = checkpoints.load_latest()
    except OSError as error:
        raise RunFailed(f"cannot read the checkpoints in {checkpoints.folder}: {error}") from error
    settings = state.get(SETTINGS, {})
    if not isinstance(settings, dict):
        raise InputError(f"{path}: its settings are a {type(settings).__name__}, not a dictionary")
    return _checked(settings, config_class, str(path))


def _checked(settings: Mapping[str, Any], config_class: type[Any], source: str) -> dict[str, Any]:
    """The settings, numbers as numbers. Raises InputError for an unknown one and one of a wrong type."""
    types = field_types(config_class)
    for name in settings:
        if name not in types:
            raise InputError(
                f"{source} has the unknown setting {name}: it is a run of another command, or of another version"
            )
    return {name: types[name].checked(value, f"{source}: {name}") for name, value in settings.items()}


def _refuse_missing(names: Sequence[str], run_dir: Path) -> None:
    if names:
        raise InputError(
            f"{run_dir / CONFIG_FILE} lacks {', '.join(names)}, and there is no checkpoint to take it from: nothing "
            "was trained yet, so start a new run"
        )


def resumed_config(
    said: C, saved: Mapping[str, Any], given: Collection[str] | None, *, may_change: Collection[str]
) -> C:
    """The configuration (a dataclass) to go on with: the saved one, with those given settings that may change.

    `given` names the settings that were said (default: those that differ from their defaults). Raises InputError for
    one that differs from the saved one and may not.
    """
    config_class: Any = type(said)
    fields = {item.name: item.default for item in dataclasses.fields(config_class)}
    if given is None:
        given = {name for name, default in fields.items() if getattr(said, name) != default}
    changed = {}
    for name in set(given) & set(fields):
        value, own = getattr(said, name), saved.get(name)
        if value == own:
            continue
        if name not in may_change:
            raise InputError(
                f"--{name} {value} differs from the run's own {own}: the settings of a resumed run cannot change; "
                "omit the flag, or start a new run"
            )
        changed[name] = value
    resumed: C = config_class(**{**saved, **changed, "run_dir": None})
    return resumed


def resumed_settings(
    said: C, run_dir: Path, kind: str, given: Collection[str] | None, *, may_change: Collection[str]
) -> tuple[C, str | None]:
    """The configuration to resume the run in a directory with (see `resumed_config`), and a remark on it.

    Raises InputError and RunFailed as `saved_settings` does.
    """
    saved = saved_settings(run_dir, Checkpoints(run_dir, kind), type(said), may_change=may_change)
    return resumed_config(said, saved.current, given, may_change=may_change), saved.remark
