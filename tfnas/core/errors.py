"""The four ways a command can end early, each with its exit status; and the hint after a word that is unknown.

The command line prints the message and leaves with `exit_status`; library users catch the classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class TfnasError(Exception):
    """Base of every error that this package raises on purpose; the message says what, where and what to do."""

    exit_status = 1
    process: int | None = None
    """The rank of the process that alone has met it, where several work together and it is not the first."""


class RunFailed(TfnasError):
    """A run could not go on (non-finite loss, full disk, out of memory); its saved state is kept."""

    exit_status = 1


class InputError(TfnasError, ValueError):
    """Wrong usage or wrong input: a flag, a file, a value."""

    exit_status = 2


class NotResumable(InputError):
    """A run of which nothing is left to go on with; the message says to start another."""


@dataclass(frozen=True, kw_only=True)
class UnmetTarget:
    """A target that cannot be met, and what can be reached instead, all in `unit`.

    `space` and `table` name what was searched; `nearest_below` and `nearest_above` are known for targets inside the
    range from `lowest` to `highest`.
    """

    target: float
    unit: str
    space: str
    table: str
    lowest: float
    highest: float
    nearest_below: float | None = None
    nearest_above: float | None = None


class Infeasible(TfnasError):
    """No architecture of the space has the target's cost in the table; `unmet` holds the figures where they are known.

    The message is one sentence; a command prints an explanation with it.
    """

    exit_status = 3

    def __init__(self, message: str, unmet: UnmetTarget | None = None) -> None:
        super().__init__(message)
        self.unmet = unmet


class Interrupted(TfnasError):
    """The run was interrupted (130) or terminated (143); its state is saved and the message says how to resume."""

    def __init__(self, message: str, exit_status: int = 130) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What follows an unknown word in a message where it is close to a known one; else nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""
