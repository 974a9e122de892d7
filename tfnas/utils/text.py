"""Text for people: numbers and lines as they read them, commands for them to type, quantities as they type them.

A command names the program as that of this process was typed:

    command_line("latency check", "--lookup_path", path)  # python -m tfnas latency check --lookup_path 'my table.json'

A script of a checkout is followed by the scripts beside it (`python train_eval_amp.py`), `python -m tfnas` and the
console script `tfnas` by themselves. A program of the user's own, which calls the library, is no command of this
package: then it is `python -m tfnas`, or in the checkout itself its scripts.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segments
from rich.table import Table

from tfnas.core.errors import InputError

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


SCRIPTS = {
    "search": ("train_search.py",),
    "parse": ("parsing_model.py",),
    "train": ("train_eval_amp.py", "train_eval.py"),
    "test": ("test.py",),
}
"""The commands that have scripts of their own in a checkout; the other commands are those of the package alone."""

_PACKAGE = Path(__file__).resolve().parent.parent
_CONSOLE_SCRIPT = "tfnas"


def command_line(command: str, *arguments: str | Path, launcher: str | None = None) -> str:
    """The line that runs a command (`search`, `latency check`) with these arguments, quoted for a shell.

    `launcher` starts several processes, as `torchrun --nproc_per_node=2` does.
    """
    return " ".join([*_start(command, launcher), *(typed(argument) for argument in arguments)])


def _start(command: str, launcher: str | None) -> list[str]:
    """The words up to the arguments."""
    folder, name = os.path.split(sys.argv[0])
    starter = launcher or typed(_as_found(sys.orig_argv[0] if sys.orig_argv else "python"))
    script = _script(command, folder, name)
    if script is not None:
        return [starter, typed(script)]
    if name == _CONSOLE_SCRIPT and launcher is None:
        return [typed(_as_found(sys.argv[0])), *command.split()]
    return [starter, "-m", _PACKAGE.name, *command.split()]


def _script(command: str, folder: str, name: str) -> str | None:
    """The command's script beside the one of this folder and name that was started; that one, where it is its own."""
    names = SCRIPTS.get(command, ())
    if not names or name == _CONSOLE_SCRIPT or (name == "__main__.py" and Path(folder).name == _PACKAGE.name):
        return None
    if any(name in scripts for scripts in SCRIPTS.values()):
        beside = os.path.join(folder, name if name in names else names[0])  # noqa: PTH118 - ./ stays as it was typed
        return beside if Path(beside).is_file() else None
    return names[0] if Path.cwd() == _PACKAGE.parent else None


def _as_found(program: str) -> str:
    """The program without its folder where the shell finds it so."""
    name = Path(program).name
    return name if shutil.which(name) == program else program


_SECONDS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}


def parse_seconds(flag: str, text: str) -> float:
    """The seconds of `10min`, `90s`, `1.5 h`, or of a plain number. Raises InputError naming the flag."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found is not None and found[2] in _SECONDS else math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"--{flag} must be a time like 90s, 10min or 1h, got {text!r}")
    return seconds


def parse_share(flag: str, text: str) -> float:
    """The share of `3%` or `0.03`, above 0 and below 1. Raises InputError naming the flag."""
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    share = float(found[1]) / (100 if found[2] else 1) if found is not None else math.nan
    if not 0 < share < 1:
        raise InputError(f"--{flag} must be a share like 3% or 0.03, got {text!r}")
    return share
