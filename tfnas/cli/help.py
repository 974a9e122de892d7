"""How `--help` looks: a flag, what it means, its default where there is one to tell."""

from __future__ import annotations

import argparse

import jsonargparse


class PlainHelp(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Without types and without defaults that say nothing; the examples at the end keep their lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        says_nothing = action.default is None or action.default is False or action.default in ("", argparse.SUPPRESS)
        return text if says_nothing or "Default:" in text else f"{text} (default: %(default)s)"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        return f"{names} {action.metavar}" if action.metavar else names
