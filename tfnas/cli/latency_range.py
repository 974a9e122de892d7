"""`tfnas latency range --space S --lookup_path FILE`: what a space can reach with a table, and where the time goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running
from tfnas.latency.space_range import RangeConfig

if TYPE_CHECKING:
    from tfnas.core.space import SearchSpace
    from tfnas.latency.cost_table import LatencyTable

_EXAMPLES = """\
  {command} --space digits
      with the table that ships with it
  {command} --lookup_path my_device.json --target_lat 20
      of the space the table was measured for, and whether 20 ms is inside
  {command} --space mine.yaml --lookup_path my_device.json --json > range.json
      every figure, as JSON for a program"""

_GROUPS = (
    FlagGroup("which space and table", ("space", "lookup_path", "num_classes", "image_size", "width_multiple")),
    FlagGroup("what to print", ("target_lat", "json", "seed")),
)
_DESCRIPTION = """\
Show which latencies a space can reach with a table, where the time goes, and
what is expensive on the device."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency range") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        config = FlagParser(prog, RangeConfig, _DESCRIPTION, _GROUPS, _EXAMPLES).read(command.arguments)
        from tfnas.latency.meet_target import check_target
        from tfnas.latency.space_range import space_range
        from tfnas.report.range_report import print_range, range_document

        space, table = _open(config)
        found = space_range(space, table, config.num_classes)
        if config.json:
            print(json.dumps(range_document(found, config.target_lat), indent=2))
        else:
            print_range(Console(), found, config.target_lat)
        if config.target_lat is not None:
            check_target(space, table, config.target_lat, config.num_classes, config.space)
    return command.status


def _open(config: RangeConfig) -> tuple[SearchSpace, LatencyTable]:
    """The space and its table; where only one is given, it names the other."""
    from tfnas.latency.cost_table import LatencyTable
    from tfnas.latency.default_table import open_table, table_space
    from tfnas.spaces.mbconv.space_file import space as load_space
    from tfnas.spaces.mbconv.space_file import space_arguments

    if config.space is None:
        assert config.lookup_path is not None
        space = table_space(LatencyTable.load(config.lookup_path))
    else:
        space = load_space(config.space)
    if config.image_size is not None:
        space = space.at(config.image_size)
    if config.width_multiple is not None:
        space = space.in_multiples_of(config.width_multiple)
    table, _ = open_table(config.lookup_path, space, space_arguments(space, config.space or space.name))
    return space, table
