"""Going on with a run: its own settings, which of them may change, its saved state, and paths that hold anywhere."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tfnas.checkpoint import Checkpoints, State
from tfnas.errors import InputError, RunFailed
from tfnas.kinds import kinds_of
from tfnas.processes import Processes
from tfnas.tensor_file import load_plain_bytes

C = TypeVar("C")


def resumed_config(
    said: C, saved: Mapping[str, Any], given: Collection[str] | None, *, may_change: Collection[str]
) -> C:
    """The configuration (a dataclass) to go on with: the saved one, with those given settings that may change.

    `given` names the settings that were said (default: those that differ from their defaults). Raises InputError for
    one that differs from the saved one and may not, and for a saved one that is unknown or of a wrong type.
    """
    config_class: Any = type(said)
    fields, kinds = dataclasses.fields(config_class), kinds_of(config_class)
    for name, value in saved.items():
        if name not in kinds:
            raise InputError(
                f"the run's config.yaml has the unknown setting {name}: "
                "it is a run of another command, or of another version"
            )
        if not kinds[name].accepts(value):
            raise InputError(f"the run's config.yaml: {name} must be {kinds[name].words}, got {value!r}")
    if given is None:
        given = {item.name for item in fields if getattr(said, item.name) != item.default}
    changed = {}
    for name in set(given) & set(kinds):
        value, own = getattr(said, name), saved.get(name)
        if value == own:
            continue
        if name not in may_change:
            raise InputError(
                f"--{name} {value} differs from the run's own {own}: a resumed run keeps its settings; "
                "leave the flag out, or start a new run"
            )
        changed[name] = value
    resumed: C = config_class(**{**saved, **changed, "run_dir": None})
    return resumed


def newest_state(
    checkpoints: Checkpoints, processes: Processes, say: Callable[[str], None]
) -> tuple[State, Path | None] | None:
    """The newest readable state, which the first process reads and hands to all, and (in that one) where it was.

    None at the beginning of a run. What is wrong with newer ones is said. Raises InputError where none is readable, and
    RunFailed where the folder is not, in all processes.
    """

    def read() -> tuple[State, Path, bytes] | None:
        try:
            if not processes.is_first or not checkpoints.prepare():
                return None
            state, path, problems = checkpoints.load_latest()
            for problem in problems:
                say(f"warning: {problem}; using the one before")
            checkpoints.set_aside(path)
            return state, path, b"" if processes.number == 1 else path.read_bytes()
        except OSError as error:
            raise RunFailed(f"cannot read the checkpoints in {checkpoints.folder}: {error}") from error

    found = processes.agreed(read)
    data = None if found is None else found[2]
    if processes.number > 1:
        data = processes.spread_bytes(data)
    if found is not None:
        return found[:2]
    return None if data is None else (dict(load_plain_bytes(io.BytesIO(data), "the checkpoint")), None)


def with_absolute_paths(config: C, names: Collection[str]) -> C:
    """The configuration with those of these paths that exist made absolute: a resumed run may stand elsewhere."""
    paths = {name: getattr(config, name) for name in names}
    absolute: dict[str, Any] = {
        name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).exists()
    }
    return dataclasses.replace(config, **absolute)  # type: ignore[type-var]
