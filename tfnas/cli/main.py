"""`python -m tfnas COMMAND` and the console script `tfnas`: every command under one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfnas.cli.running import running, show_version, version_text
from tfnas.core.errors import InputError, did_you_mean
from tfnas.utils.text import command_line


@dataclass(frozen=True)
class Subcommand:
    """One of several commands: its line in their list, and the module beside this one whose `main` runs it."""

    summary: str
    module: str


COMMANDS = {
    "search": Subcommand("search for a network that meets a latency", "train_search"),
    "evolve": Subcommand("search for a network by scores of untrained ones", "evolve"),
    "parse": Subcommand("write out and show what a search found", "parsing_model"),
    "rerank": Subcommand("rank networks of the same latency as the one found", "rerank"),
    "train": Subcommand("train a derived network", "train_eval"),
    "test": Subcommand("test a trained network on images", "test"),
    "predict": Subcommand("predict the most probable classes of images", "predict"),
    "export": Subcommand("write a trained network as an ONNX or torch.export file", "export"),
    "latency": Subcommand("latency tables: build, check, range, close, certify", "latency"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names and return its exit status."""
    title = f"{version_text()}: from images and a latency target to a trained network that meets it"
    return run_subcommand("tfnas", COMMANDS, argv, title)


def run_subcommand(
    prog: str, commands: Mapping[str, Subcommand], argv: Sequence[str] | None, title: str | None = None
) -> int:
    """Run the command of several that the first argument names, which alone is imported, and return its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in commands:
        module = importlib.import_module(f"tfnas.cli.{commands[arguments[0]].module}")
        status: int = module.main(arguments[1:], f"{prog} {arguments[0]}")
        return status
    with running(prog, arguments) as command:
        if "--version" in arguments:
            show_version()
        if arguments[:1] not in (["--help"], ["-h"]):
            _refuse(prog, commands, arguments)
        print(_help_text(prog, commands, title))
    return command.status


def _refuse(prog: str, commands: Mapping[str, Subcommand], arguments: Sequence[str]) -> None:
    """Raise InputError: these arguments name none of the commands."""
    if not arguments:
        how = command_line(" ".join([*prog.split()[1:], "--help"]))
        raise InputError(f"give a command: {', '.join(commands)}; {how} says what each does")
    hint = did_you_mean(arguments[0], commands)
    raise InputError(f"unknown command {arguments[0]!r}{hint}; there are {', '.join(commands)}")


def _help_text(prog: str, commands: Mapping[str, Subcommand], title: str | None) -> str:
    command = command_line(" ".join([*prog.split()[1:], "COMMAND"]))
    lines = [f"  {name:<10}{one.summary}" for name, one in commands.items()]
    end = f"{command} --help lists a command's flags; --version alone prints the version."
    return "\n".join([*([title, ""] if title else []), f"usage: {command} [--flag value ...]", "", *lines, "", end])
