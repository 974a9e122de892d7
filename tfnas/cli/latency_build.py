"""`python -m tfnas latency build --space digits --out table.json`: measure a latency table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tfnas.bench.bench_config import BuildConfig
from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.runs.endings import watch_interruption
from tfnas.spaces.mbconv.space_file import space_arguments, space_names
from tfnas.spaces.zen.structure_spaces import is_structure_space, structure_space_names
from tfnas.utils.progress import TimeLeftColumn
from tfnas.utils.text import command_line, say

if TYPE_CHECKING:
    from tfnas.bench.table_build import BuildStep
    from tfnas.core.space import SearchSpace
    from tfnas.latency.cost_table import LatencyTable

T = TypeVar("T")

_EXAMPLES = """\
  {command} --space digits --out digits_here.json
      a table for the small space on one thread of this processor, in a minute
  {command} --space imagenet --runtime onnxruntime \\
    --batch 1 --out imagenet_onnx.json
      single images in ONNX Runtime
  {command} --space imagenet --batch 32 --device cuda \\
    --dtype bfloat16 --width_multiple 8 --out imagenet_gpu.json
      a GPU, only at widths that are multiples of 8
  {command} --space imagenet --runtime onnxruntime \\
    --batch 1 --worker "ssh pi@raspberrypi python3 -" --out pi.json
      another device, which needs Python, numpy and onnxruntime
  {command} --space zen-xxbl --image_size 32 --batch 1 --out zen.json
      structures, for tfnas evolve
  {command} --space imagenet --cost macs --out imagenet_macs.json
      multiply-accumulates instead of milliseconds"""


_GROUPS = (
    FlagGroup("what to measure", ("out", "space", "cost", "image_size", "num_classes", "width_multiple")),
    FlagGroup("where", ("runtime", "device", "threads", "batch", "dtype", "worker", "worker_timeout")),
    FlagGroup(
        "how long and how closely", ("time_budget", "tolerance", "max_points", "max_unit_macs", "rounds", "calls")
    ),
    FlagGroup("randomness", ("held_out", "seed")),
)
_IMAGES = {
    "imagenet": ("--data", "folder", "--img_root", "FOLDER"),
    "cifar": ("--data", "cifar10", "--img_root", "FOLDER"),
}
"""The flags that name the images of a built-in space that ships without any."""

_DIGITS = 10
"""Classes of the embedded digits, which a search uses unless other images are named."""

_DESCRIPTION = """\
Measure the latency of every block of a search space, and report how accurate
the table is."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency build") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(prog, BuildConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, command_line_only=("worker",))
        config = parser.read(command.arguments)
        if is_structure_space(config.space):
            _build_structures(config, prog)
        elif config.cost != "ms":
            from tfnas.latency.counted_table import write_counted_table

            counted = write_counted_table(config.opened_space(), config.cost, config.out, config.num_classes)
            _report(Console(soft_wrap=True), config, counted)
        else:
            say_loading(prog)
            from tfnas.bench.build_table import build_table

            _report(Console(soft_wrap=True), config, _measured(config, build_table))
    return command.status


def _build_structures(config: BuildConfig, prog: str) -> None:
    """Measure a table of structures and report it."""
    say_loading(prog)
    from tfnas.bench.build_structure_table import build_structure_table, structure_family
    from tfnas.report.structure_table_report import structure_build_lines

    family = structure_family(config)
    table, console = _measured(config, build_structure_table), Console(soft_wrap=True)
    for line in structure_build_lines(table, family):
        say(console, line)
    _say_next(console, "check", "latency check", "--lookup_path", config.out, *_checked_where(config))
    size, target_ms = family.initial.image_size, _rounded_up(table.architecture_ms(family.initial))
    images = "--image_size", str(size), "--num_classes", str(config.num_classes)
    flags = "--space", config.space, *images, "--lookup_path", config.out, "--max_ms", target_ms
    _say_next(console, "search", "evolve", *flags)


def _say_next(console: Console, head: str, *command: str) -> None:
    say(console, f"{head:<10}{command_line(*command)}")


def _measured(config: BuildConfig, build: Callable[..., T]) -> T:
    """Build a table, showing progress."""
    console = Console(stderr=True)
    for line in _existing_files(Path(config.out)):
        say(console, line)
    with _shown(console, config) as (on_step, on_measurement):
        return build(config, on_step=on_step, on_measurement=on_measurement)


def _existing_files(out: Path) -> Iterator[str]:
    """What is there already, and what happens to it."""
    partial = Path(f"{out}.partial")
    if out.is_file():
        anew = "" if partial.exists() else "measuring again; "
        yield f"{out} exists: {anew}it is left in place until the new table is complete"
    if partial.exists():
        yield f"resuming an earlier build from {partial}"


@contextmanager
def _shown(console: Console, config: BuildConfig) -> Iterator[tuple[Callable[[BuildStep], None], Callable[[], None]]]:
    """What to call at every step and every measurement: progress with time left, and stopping at a signal."""
    saved = f"measurements are saved in {config.out}.partial; the same command resumes from there"
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeLeftColumn()
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    with progress, watch_interruption(console) as watch:
        tasks: list[TaskID] = []

        def on_step(step: BuildStep) -> None:
            for task in tasks:
                progress.update(task, total=progress.tasks[task].completed)
            tasks.append(progress.add_task(f"{step.words}: {step.points} points", total=step.measurements))
            if not console.is_terminal:
                say(console, f"{step.words}: {step.points} points, {step.measurements} measurements")

        def on_measurement() -> None:
            watch.raise_if_asked(saved)
            progress.advance(tasks[-1])

        yield on_step, on_measurement


def _report(console: Console, config: BuildConfig, table: LatencyTable) -> None:
    """What was measured, how good it is, and what to do with it."""
    from tfnas.report.table_report import build_lines

    space = config.opened_space()
    for line in build_lines(table, space):
        say(console, line)
    if config.cost == "ms":
        _say_next(console, "check", "latency check", "--lookup_path", config.out, *_checked_where(config))
    target = _some_target(space, table, table.num_classes if config.space in _IMAGES else None)
    words = *space_arguments(space, config.space), "--lookup_path", config.out, "--target_lat", target
    _say_next(console, "search", "search", *_IMAGES.get(config.space, ()), *words)


def _some_target(space: SearchSpace, table: LatencyTable, num_classes: int | None) -> str:
    """What the space's network of usual widths takes, rounded up: the middle of a coarse space's range may be a gap.

    The band below it, half a percent wide, holds that network.
    """
    widths = [space.initial_width(place, space.operations[0]) for place in space.blocks]
    depths = [stage.blocks for stage in space.stages]
    usual = table.architecture_ms(space.architecture([0] * len(widths), depths, widths, num_classes or _DIGITS))
    return _rounded_up(usual)


def _rounded_up(value: float) -> str:
    """To four digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit) * unit:.10g}"


def _checked_where(config: BuildConfig) -> Iterator[str]:
    """What a check needs besides the table: the user's own space, and where the device is."""
    if config.space not in (*space_names(), *structure_space_names()):
        yield from ("--space", config.space)
    if ":" in config.device:
        yield from ("--device", config.device)
    if config.worker is not None:
        yield from ("--worker", config.worker, "--worker_timeout", f"{config.worker_timeout:g}")
