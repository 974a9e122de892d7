"""`tfnas rerank --model_path RUN_DIR`: rank networks of the same latency as the one that a search found."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.cli.edge import run_command, say_loading
from tfnas.cli.groups import FlagGroup

_EXAMPLES = """\
  {command} --model_path runs/search-20250131-120000
      64 networks in the latency band, by zen and naswot
  {command} --model_path runs/search-20250131-120000 \\
    --scores zen,naswot,inherited --pick rank
      and put the first of the ranking into the run directory
  {command} --model_path runs/search-20250131-120000 \\
    --calibrate 16 --calibrate_epochs 30 --calibrate_images 150
      train 16 of them to see which scores are worth anything here"""


SCORING = ("num_candidates", "score_batch", "pick")
CALIBRATING = ("calibrate", "calibrate_epochs", "calibrate_images", "calibrate_seeds")
COMPUTING = ("jobs", "joblib_backend", "cluster")
COMMAND_LINE_ONLY = ("cluster",)
"""Connecting to an address hands it work and believes what it answers: no file may say where."""

_GROUPS = (
    FlagGroup("what to rank", ("model_path", "scores", *SCORING)),
    FlagGroup("what scores are worth", CALIBRATING),
    FlagGroup("where", (*COMPUTING, "device", "seed", "lookup_path")),
)
_DESCRIPTION = """\
Draw networks from what a search has learned, all brought to its target; score
them, judge each with the supernet's weights, and say where the derived network
stands among them."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas rerank") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    return run_command(prog, lambda arguments: _rerank(prog, arguments), argv)


def _rerank(prog: str, arguments: Sequence[str]) -> None:
    from rich.console import Console

    from tfnas.cli.flags import FlagParser
    from tfnas.searching.reranking.rerank_config import RerankConfig

    parser = FlagParser(
        prog,
        RerankConfig,
        _DESCRIPTION,
        _GROUPS,
        _EXAMPLES,
        aliases={"rerank": "scores"},
        command_line_only=COMMAND_LINE_ONLY,
    )
    config = parser.read(arguments)
    say_loading(prog)
    from tfnas.searching.reranking.rerank import rerank

    rerank(config, Console())
