"""What installed packages add under entry points: scores, spaces, types of blocks and families."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from tfnas.core.errors import InputError

T = TypeVar("T")


def load_entry_point(entry: EntryPoint, kind: type[T]) -> T:
    """The object that an entry point names.

    Raises InputError that names the package and the module where it cannot be loaded, or is of another kind.
    """
    try:
        found = entry.load()
    except Exception as error:  # whatever a module of somebody else's may raise
        reason = str(error) or type(error).__name__
        raise InputError(f"{_text(entry)} cannot be loaded: {reason}") from error
    if not isinstance(found, kind):
        raise InputError(f"{_text(entry)} must be a {kind.__name__}, got a {type(found).__name__}")
    return found


def register_entry_point(entry: EntryPoint, kind: type[Any], register: Callable[[Any], None]) -> None:
    """Load the object that an entry point names and register it under its name.

    Raises InputError that names the package and the module, as `load_entry_point`, also where it is not accepted.
    """
    found = load_entry_point(entry, kind)
    name = getattr(found, "name", entry.name)
    if name != entry.name:
        raise InputError(f"{_text(entry)} must be named like its entry point, got name {name!r:.80}")
    try:
        register(found)
    except ValueError as error:
        raise InputError(f"{_text(entry)}: {error}") from error


def _text(entry: EntryPoint) -> str:
    """What messages call an entry point: by its group, name and value, and the package that has it."""
    package = "" if entry.dist is None else f" of package {entry.dist.name}"
    return f'entry point {entry.name} = "{entry.value}"{package} ({entry.group})'
