"""`python -m tfnas latency build --space digits --out table.json`: measure a latency table on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.cli.edge import run_command
from tfnas.cli.groups import FlagGroup
from tfnas.errors import InputError

_EXAMPLES = """\
  {command} --space digits --out digits_here.json
      a table for the small space on one thread of this processor, a few minutes
  {command} --space imagenet --batch 32 --device cuda \\
    --out imagenet_gpu.json
      a table for the GPU; search with it: --lookup_path imagenet_gpu.json"""


_GROUPS = (
    FlagGroup("what to measure", ("out", "space", "image_size", "num_classes")),
    FlagGroup("where", ("device", "threads", "batch", "dtype")),
    FlagGroup("how long and how closely", ("rounds", "calls", "widths_per_block", "networks", "seed")),
)


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    return run_command(prog, lambda arguments: _latency(prog, arguments), argv)


def _latency(prog: str, arguments: Sequence[str]) -> None:
    if arguments[:1] in (["--help"], ["-h"]):
        print(f"usage: {prog} build [--flag value ...]\n\n  build  measure a table; {prog} build --help says how")
        return
    if arguments[:1] != ["build"]:
        given = f", not {arguments[0]!r}" if arguments else ""
        raise InputError(f"write {prog} build{given}; {prog} build --help says more")
    _build(f"{prog} build", arguments[1:])


def _build(prog: str, arguments: Sequence[str]) -> None:
    from tfnas.cli.flags import FlagParser
    from tfnas.latency.build import BuildConfig, build_table
    from tfnas.space_file import space as load_space
    from tfnas.wording import typed

    description = "Measure the milliseconds of every block of a search space, at a few widths each."
    config = FlagParser(prog, BuildConfig, description, _GROUPS, _EXAMPLES).read(arguments)
    table = build_table(config)
    print(f"{config.out}: {table.description}, fingerprint {table.fingerprint}")
    space = load_space(config.space)
    space = space if config.image_size is None else space.at(config.image_size)
    low, high = table.range_ms(space)
    size = "" if config.image_size is None else f" --image_size {config.image_size}"
    print(f"reachable {table.bounds_text(space)}")
    print(
        f"next      python train_search.py --space {typed(config.space)}{size} --lookup_path {typed(config.out)} "
        f"--target_lat {(low + high) / 2:.3g}"
    )
