"""How `--help` looks: a flag, what it means, its default where there is one to tell; groups that answer questions."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import jsonargparse

_SILENT_DEFAULTS = (None, False, "", argparse.SUPPRESS)


@dataclass(frozen=True)
class FlagGroup:
    """A heading of the help text, the fields of the command's dataclass under it, and a line on all of them."""

    title: str
    fields: tuple[str, ...]
    description: str | None = None


class PlainHelp(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Without types and without defaults that say nothing; the examples at the end keep their lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        silent = action.default in _SILENT_DEFAULTS or "Default:" in text
        return text if silent else f"{text} (default: %(default)s)"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        return f"{names} {action.metavar}" if action.metavar else names
