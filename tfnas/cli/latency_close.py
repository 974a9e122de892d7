"""`tfnas latency close --model_path RUN_DIR`: fit a derived network until it measures the target."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.cli.edge import say_loading
from tfnas.cli.groups import FlagGroup

_EXAMPLES = """\
  {command} --model_path runs/search-20250131-120000
      the search's network to its own target, in its table's runtime
  {command} --model_path runs/search-20250131-120000 \\
    --target_lat 14 --epsilon 0.5% --time_budget 20min
      another target, closer
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
Build a derived network, time it as a whole in its table's runtime, fit its
widths by what was found, and again, until what is measured is within epsilon of
the target. Operations and depth stay. What comes out is a new run directory."""


def run(prog: str, arguments: Sequence[str]) -> None:
    """Run the command."""
    from rich.console import Console

    from tfnas.cli.flags import FlagParser
    from tfnas.searching.refitting.refit_config import CloseConfig

    parser = FlagParser(prog, CloseConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, command_line_only=("worker",))
    config = parser.read(arguments)
    say_loading(prog)
    from tfnas.searching.refitting.refit_run import close_run

    close_run(config, Console())
