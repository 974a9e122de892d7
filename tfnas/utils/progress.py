"""Showing a person at a terminal that work goes on, for how long it does already, and how much is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tfnas.utils.text import clock, say

_SECONDS_BETWEEN_LINES = 10.0
_GENTLE = 1
"""Drawings in a second beside what is timed."""


class Counted(Protocol):
    """What takes how many are done, and how many there are."""

    def __call__(self, done: int, of: int | None = None, /) -> None:
        """Show it."""


class TimeLeftColumn(TimeRemainingColumn):
    """`0:00:07 left`, where it is known; nothing before."""

    def render(self, task: Task) -> Text:
        """The text for a task."""
        if task.total is None or task.time_remaining is None:
            return Text()
        return super().render(task).append(" left")


@contextmanager
def waiting(console: Console, words: str) -> Iterator[Callable[[str], None]]:
    """At a terminal, say what is done, with the seconds that it takes already, until the body ends; elsewhere nothing.

    Yields what says something else from then on.
    """
    with _shown(console, TextColumn("{task.description}"), TimeElapsedColumn(), a_second=_GENTLE) as progress:
        task = progress.add_task(words)
        yield lambda words: progress.update(task, description=words)


@contextmanager
def spending(console: Console, words: str) -> Iterator[Callable[[float, float | None], None]]:
    """At a terminal, a bar of seconds; elsewhere nothing. Yields what takes those spent, and those in all if known."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with _shown(console, *columns, a_second=_GENTLE) as progress:
        task = progress.add_task(words, total=None, left="")

        def spent(seconds: float, planned: float | None) -> None:
            left = "" if planned is None else f"about {clock(max(0.0, planned - seconds))} left"
            progress.update(task, completed=seconds, total=planned, left=left)

        yield spent


@contextmanager
def counting(console: Console, words: str, total: int | None = None) -> Iterator[Counted]:
    """A bar with the time left; where nobody watches, a line from time to time.

    Yields what takes how many are done, and how many there are, where that is not as before.
    """
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TimeLeftColumn()),
    )
    with _shown(console, *columns) as progress:
        task = progress.add_task(words, total=total)
        started = last_said = time.monotonic()
        first: int | None = None

        def counted(done: int, of: int | None = None, /) -> None:
            nonlocal last_said, first, total
            total = total if of is None else of
            progress.update(task, completed=done, total=total)
            first = done if first is None else first
            now = time.monotonic()
            due = not console.is_terminal and now - last_said >= _SECONDS_BETWEEN_LINES
            if due and total is not None and first < done < total:
                last_said, left_s = now, (now - started) * (total - done) / (done - first)
                say(console, f"{words}: {done} of {total}, about {clock(left_s)} left")

        yield counted


def _shown(console: Console, *columns: ProgressColumn, a_second: float = 10) -> Progress:
    """A display that is gone when it ends. What is printed meanwhile stands above it, unless it goes to a file."""
    return Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        refresh_per_second=a_second,
        redirect_stdout=sys.stdout.isatty(),
    )
