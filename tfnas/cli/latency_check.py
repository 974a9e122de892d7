"""`tfnas latency check --lookup_path FILE`: time whole networks against a table, and correct it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tfnas.cli.edge import say_loading
from tfnas.cli.flags import FlagParser
from tfnas.cli.groups import FlagGroup
from tfnas.latency.checking.config import CheckConfig
from tfnas.wording import clock, say

_EXAMPLES = """\
  {command} --lookup_path my_table.json
      20 random networks against the sums of their blocks; corrects the table
  {command} --lookup_path my_table.json --correct false \\
    --num_networks 50
      only look, at more networks
  {command} --lookup_path mine.json --space mine.yaml
      a table of a space of your own"""


_GROUPS = (
    FlagGroup("what to check", ("lookup_path", "num_networks", "space")),
    FlagGroup("what to do with it", ("correct", "out", "out_dir", "level")),
    FlagGroup("where", ("device", "worker", "worker_timeout")),
    FlagGroup("how long and how closely", ("rounds", "calls", "time_budget", "seed")),
)
_DESCRIPTION = "Time whole networks against a latency table, and correct what its sums miss."
_SECONDS_BETWEEN_LINES = 10.0


def run(prog: str, arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = FlagParser(prog, CheckConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, command_line_only=("worker",))
    config = parser.read(arguments)
    say_loading(prog)
    from tfnas.latency.checking.check import check_table
    from tfnas.latency.checking.printing import print_check

    with _shown(Console(stderr=True)) as on_visit:
        report = check_table(config, on_visit=on_visit)
    print_check(Console(), report)


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[int, int], None]]:
    """What to call after every visit: a bar with the time left; where nobody watches, some lines."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("timing whole networks", total=None)
        started = last_said = time.monotonic()

        def on_visit(done: int, planned: int) -> None:
            nonlocal last_said
            progress.update(task, completed=done, total=planned)
            now = time.monotonic()
            if not console.is_terminal and now - last_said >= _SECONDS_BETWEEN_LINES:
                last_said, left_s = now, (now - started) * (planned - done) / done
                say(console, f"timing whole networks: {done} of {planned} visits, {clock(left_s)} left")

        yield on_visit
