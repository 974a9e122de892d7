"""`python -m tfnas COMMAND` and the console script `tfnas`: every command under one name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tfnas.cli import export, latency, parsing_model, predict, rerank, testing, train_eval, train_search
from tfnas.cli.edge import run_command, version_text
from tfnas.core.errors import InputError
from tfnas.utils.text import command_line


@dataclass(frozen=True)
class Command:
    """A command: its one line in the list, and what runs it on its arguments under a program name."""

    help: str
    main: Callable[[Sequence[str], str], int]


COMMANDS = {
    "search": Command("search for a network that meets a latency", train_search.main),
    "parse": Command("write out and show what a search found", parsing_model.main),
    "rerank": Command("rank networks of the same latency as the one found", rerank.main),
    "train": Command("train a derived network", train_eval.main),
    "test": Command("test a trained network on images", testing.main),
    "predict": Command("tell the most probable classes of pictures", predict.main),
    "export": Command("write a trained network as an ONNX or torch.export file", export.main),
    "latency": Command("latency tables: build, check, range, close, certify", latency.main),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names and return its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in COMMANDS:
        name = arguments[0]
        return COMMANDS[name].main(arguments[1:], f"tfnas {name}")
    return run_command("tfnas", _no_command, arguments)


def _no_command(arguments: Sequence[str]) -> None:
    if arguments[:1] in (["--help"], ["-h"]):
        print(_help_text())
        return
    if not arguments:
        raise InputError(f"give a command: {', '.join(COMMANDS)}; {command_line('--help')} says what each does")
    close = difflib.get_close_matches(arguments[0], COMMANDS, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(f"unknown command {arguments[0]!r}{hint}; there are {', '.join(COMMANDS)}")


def _help_text() -> str:
    lines = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"{version_text()}: images and milliseconds in; a network that takes them out",
            "",
            f"usage: {command_line('COMMAND')} [--flag value ...]",
            "",
            *lines,
            "",
            f"{command_line('COMMAND', '--help')} lists a command's flags; --version alone prints the version.",
        ]
    )
