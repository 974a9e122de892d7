"""`tfnas latency close --model_path RUN_DIR`: adjust a derived network until it measures the target."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.searching.refitting.refit_config import CloseConfig

_EXAMPLES = """\
  {command} --model_path runs/search-20250131-120000
      the search's network to its own target, in its table's runtime
  {command} --model_path runs/search-20250131-120000 \\
    --target_lat 14 --epsilon 0.5% --time_budget 20min
      another target, met more closely
  {command} --model_path architecture.json --target_lat 40 \\
    --lookup_path pi.json --worker "ssh pi@raspberrypi python3 -"
      on another device"""


_GROUPS = (
    FlagGroup("what to meet", ("model_path", "lookup_path", "target_lat", "epsilon")),
    FlagGroup("how long", ("iterations", "time_budget")),
    FlagGroup("where", ("device", "worker", "worker_timeout", "seed")),
    FlagGroup("the new run directory", ("save", "note", "run_dir")),
)
_DESCRIPTION = """\
Build a derived network, time it as a whole in its table's runtime, refit its
widths to what was measured, and repeat until the measurement is within epsilon
of the target. Operations and depth do not change. The result is a new run
directory."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency close") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(prog, CloseConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, command_line_only=("worker",))
        config = parser.read(command.arguments)
        say_loading(prog)
        from tfnas.searching.refitting.refit_run import close_run

        close_run(config, Console())
    return command.status
