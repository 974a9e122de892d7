"""`tfnas rerank --model_path RUN_DIR`: rank networks of the same latency as the one that a search found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.searching.reranking.rerank_config import RerankConfig

_EXAMPLES = """\
  {command} --model_path runs/search-20250131-120000
      64 networks in the latency band, by zen and naswot
  {command} --model_path runs/search-20250131-120000 \\
    --scores zen,naswot,inherited --pick rank
      and write the first of the ranking into the run directory
  {command} --model_path runs/search-20250131-120000 \\
    --calibrate 16 --calibrate_epochs 30 --calibrate_images 150
      train 16 of them to see which scores predict accuracy here"""


SCORING = ("num_candidates", "score_batch", "pick")
CALIBRATING = ("calibrate", "calibrate_epochs", "calibrate_images", "calibrate_seeds")
COMPUTING = ("jobs", "joblib_backend", "cluster")
COMMAND_LINE_ONLY = ("cluster",)
"""Connecting to an address sends it work and trusts its answers: no file may give one."""

_GROUPS = (
    FlagGroup("what to rank", ("model_path", "scores", *SCORING)),
    FlagGroup("how well the scores predict accuracy", CALIBRATING),
    FlagGroup("where", (*COMPUTING, "device", "seed", "lookup_path")),
)
_DESCRIPTION = """\
Sample networks from what a search has learned, all fitted to its target; score
them, evaluate each with the supernet's weights, and show where the derived
network ranks among them."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas rerank") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(
            prog,
            RerankConfig,
            _DESCRIPTION,
            _GROUPS,
            _EXAMPLES,
            aliases={"rerank": "scores"},
            command_line_only=COMMAND_LINE_ONLY,
        )
        config = parser.read(command.arguments)
        say_loading(prog)
        from tfnas.searching.reranking.rerank import rerank

        rerank(config, Console())
    return command.status
