"""`tfnas latency check --lookup_path FILE`: time whole networks against a table, and correct it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console

from tfnas.bench.bench_config import CheckConfig
from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import ResultPrinter, running, say_loading
from tfnas.utils.progress import counting

_EXAMPLES = """\
  {command} --lookup_path my_table.json
      20 random networks against the sums of their blocks; corrects the table
  {command} --lookup_path my_table.json --correct false \\
    --num_networks 50
      only check, on more networks; the table stays as it is
  {command} --lookup_path mine.json --space mine.yaml
      a table of your own space"""


_GROUPS = (
    FlagGroup("what to check", ("lookup_path", "num_networks", "space")),
    FlagGroup("what to do with it", ("correct", "out", "out_dir", "level")),
    FlagGroup("where", ("device", "worker", "worker_timeout")),
    FlagGroup("how long and how closely", ("rounds", "calls", "time_budget", "seed")),
)
_DESCRIPTION = "Time whole networks against a latency table, and correct the error of its sums."


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency check") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(prog, CheckConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, command_line_only=("worker",))
        config = parser.read(command.arguments)
        say_loading(prog)
        from tfnas.bench.check_report import CheckReport
        from tfnas.bench.check_table import check_table
        from tfnas.report.table_report import print_found, print_written

        with ExitStack() as shown:
            on_measurement = shown.enter_context(counting(Console(stderr=True), "timing whole networks"))
            on_found = ResultPrinter[CheckReport](shown, lambda found: print_found(Console(), found))
            report = check_table(config, on_measurement=on_measurement, on_found=on_found)
        on_found.finish()
        print_written(Console(), report)
    return command.status
