"""`python -m tfnas latency COMMAND`: everything about the milliseconds of a device."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.cli.main import Subcommand, run_subcommand

COMMANDS = {
    "build": Subcommand("measure the table of a space on this machine or another device", "latency_build"),
    "check": Subcommand("time whole networks against a table, and correct it", "latency_check"),
    "range": Subcommand("what a space can reach with a table, and where the time goes", "latency_range"),
    "close": Subcommand("adjust a derived network's widths until it measures the target", "latency_close"),
    "certify": Subcommand("time an exported file and certify its latency", "latency_certify"),
}


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency") -> int:
    """Run the command that the first argument names and return its exit status."""
    return run_subcommand(prog, COMMANDS, argv)
