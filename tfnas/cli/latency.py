"""`python -m tfnas latency COMMAND`: everything about the milliseconds of a device."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from tfnas.cli.edge import run_command
from tfnas.core.errors import InputError
from tfnas.utils.text import command_line

_COMMANDS = {
    "build": "measure the table of a space on this machine or another device",
    "check": "time whole networks against a table, and correct it",
    "range": "what a space can reach with a table, and where the time goes",
    "close": "fit a derived network until it measures the target",
    "certify": "time an exported file and say what it takes",
}
"""Each is `run(prog, arguments)` in the module `latency_<name>` beside this one, imported when it is asked for."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    return run_command(prog, lambda arguments: _latency(prog, arguments), argv)


def _latency(prog: str, arguments: Sequence[str]) -> None:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = [f"  {name:<9}{words}" for name, words in _COMMANDS.items()]
        command = command_line("latency COMMAND")
        print("\n".join([f"usage: {command} [--flag value ...]", "", *lines, "", f"{command} --help says more."]))
        return
    if not arguments:
        raise InputError(
            f"give a command: {', '.join(_COMMANDS)}; {command_line('latency', '--help')} says what each does"
        )
    name = arguments[0]
    if name not in _COMMANDS:
        close = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"unknown command {name!r}{hint}; there are {', '.join(_COMMANDS)}")
    module = importlib.import_module(f"tfnas.cli.latency_{name}")
    module.run(f"{prog} {name}", arguments[1:])
