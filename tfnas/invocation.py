"""Command lines for people to type, with the program named as that of this process was typed.

    command_line("latency check", "--lookup_path", path)  # python -m tfnas latency check --lookup_path 'my table.json'

A script of a checkout is followed by the scripts beside it (`python train_eval_amp.py`), `python -m tfnas` and the
console script `tfnas` by themselves. A program of the user's own, which calls the library, is no command of this
package: then it is `python -m tfnas`, or in the checkout itself its scripts.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tfnas.wording import typed

SCRIPTS = {
    "search": ("train_search.py",),
    "parse": ("parsing_model.py",),
    "train": ("train_eval_amp.py", "train_eval.py"),
    "test": ("test.py",),
}
"""The commands that have scripts of their own in a checkout; the other commands are those of the package alone."""

_PACKAGE = Path(__file__).resolve().parent
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
