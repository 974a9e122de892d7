"""`tfnas evolve --max_params 1e6`: search a network without training any (also `tfnas.evolve`)."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.core.cost import COSTS
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.searching.evolution.presets import preset, preset_config, preset_names

_EXAMPLES = """\
  {command} --preset zen-cifar-1m --iterations 2000
      a published search, shortened; --list_presets shows all of them
  {command} --max_params 1e6 --image_size 32 --num_classes 10
      the best network of a million parameters by the Zen-Score
  {command} --score 0.9*zen+0.1*entropy --max_macs 400e6
      a weighted sum of scores
  {command} --space digits --score naswot --max_macs 1e6
      networks of MBConv blocks
  {command} --resume runs/evolve-20250131-120000
      resume an interrupted run"""

_GROUPS = (
    FlagGroup(
        "what to search",
        ("preset", "list_presets", "space", "space_variant", "space_rules", "init", "image_size", "num_classes"),
    ),
    FlagGroup(
        "budgets",
        (
            *("max_params", "max_macs", "max_layers", "target_lat", "max_ms", "lookup_path"),
            *("max_memory", "max_effectiveness", "max_feature", "reference_counts"),
        ),
        "Any number of them, all kept at once; a network may reach each.",
    ),
    FlagGroup(
        "what is maximised",
        ("score", "combine", "batch_size", "repeats", "stage_weights", "depth_penalty", "incorporated_weights"),
    ),
    FlagGroup(
        "real images",
        ("data", "img_root", "train_list", "val_list", "val_ratio", "test_ratio", "class_names", "workers"),
        "For scores that need them, and recorded for training.",
    ),
    FlagGroup("the procedure", ("iterations", "population", "children")),
    FlagGroup("the run", ("save", "note", "run_dir", "resume", "seed", "save_minutes", "print_freq")),
    FlagGroup(
        "the machine",
        ("jobs", "joblib_backend", "cluster", "device", "deterministic", "local_rank", "rank_timeout"),
    ),
)
_COMMAND_LINE_ONLY = ("cluster",)
"""Connecting to an address sends it work and trusts its answers: no file may give one."""
_DESCRIPTION = """\
Search for the network of the highest score within budgets by evolution. Scores
are of untrained networks, so nothing is trained and no images are needed."""


@dataclass(frozen=True, kw_only=True)
class _EvolveFlags(EvolveConfig):
    """The settings, and where those that are not given come from."""

    preset: str | None = None
    """Published search, which all settings that are not given are taken from: a name that --list_presets shows, or a
    configuration file of TinyNAS, which is read as data."""
    list_presets: bool = False
    """Print the published searches with their budgets, and exit."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas evolve") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(
            prog,
            _EvolveFlags,
            _DESCRIPTION,
            _GROUPS,
            _EXAMPLES,
            aliases={"target": "target_lat"},
            command_line_only=_COMMAND_LINE_ONLY,
        )
        given = parser.given(command.arguments)
        if given.pop("list_presets", False):
            _print_presets()
            return 0
        name = given.pop("preset", None)
        published = name is not None and given.get("resume") is None  # a resumed run has its own settings
        config = preset_config(name, **given) if published else EvolveConfig(**given)
        say_loading(prog)
        from tfnas.searching.evolution.evolutionary_search import evolve

        evolve(config, given=given.keys())
    return command.status


def _print_presets() -> None:
    """Print the published searches: their source, score, space and budgets, in lines as wide as the terminal."""
    width = shutil.get_terminal_size().columns
    for name in preset_names():
        found = preset(name)
        fields = found.fields
        searched = f"{fields['score']} in {fields['space']} at {fields['image_size']} px"
        print(textwrap.fill(f"{name}: {found.source}", width, subsequent_indent="  "))
        text = f"{searched}; {', '.join(map(_budget_text, found.budgets.items()))}"
        print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))


def _budget_text(budget: tuple[str, float]) -> str:
    """A budget of a preset with its unit."""
    name, limit = budget[0].removeprefix("max_"), budget[1]
    if name in COSTS:
        return COSTS[name].quantity(limit)
    units = {"layers": "layers", "ms_per_image": "ms per image"}
    return f"{limit:g} {units[name]}" if name in units else f"{name} {limit:g}"
