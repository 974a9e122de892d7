"""Numbers and lines as a person reads them."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table

HANGING = 10
_ANY_WIDTH = 10_000
_COMMAND = re.compile(rf"[a-z ]{{{HANGING}}}(\S*/)?(python[0-9.]*|torchrun|tfnas) ")
"""A command line behind the word that heads it."""


def say(console: Console, line: str) -> None:
    """Print a line: wrapped between words in a terminal, whole where a program reads it.

    A command is left to the terminal, so that it can be copied from there in one piece.
    """
    if console.is_terminal and len(line) > console.width and not _COMMAND.match(line):
        line = textwrap.fill(
            line,
            console.width,
            subsequent_indent=" " * HANGING,
            break_long_words=False,
            break_on_hyphens=False,
        )
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its own width: a narrower terminal wraps its lines, and nothing is cut."""
    options = console.options.update_width(own_width(console, table))
    console.print(Segments(console.render(table, options)), soft_wrap=True)


def own_width(console: Console, table: Table) -> int:
    """How many columns a table takes where nothing of it is cut or wrapped."""
    return Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table).maximum


def clock(seconds: float) -> str:
    """Seconds as a person says them: `2 min 5 s`, `3 h 10 min`, `1.8 days`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 2 * 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:.1f} days"


def short(number: int) -> str:
    """A count of parameters or MACs: `44.6 k`, `4.06 M`."""
    return f"{number / 1e6:.2f} M" if number >= 10**6 else f"{number / 1e3:.1f} k"


def percent(error: float) -> str:
    """A signed percentage with two decimals, never -0.00."""
    return f"{round(error, 2) + 0.0:+.2f} %"


def typed(path: Path | str) -> str:
    """A path as it must be typed in a shell."""
    return shlex.quote(str(path))
