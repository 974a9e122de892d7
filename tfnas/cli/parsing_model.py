"""`python parsing_model.py --model_path RUN_DIR`: write out and show what a search found (also `tfnas parse`)."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.rerank import CALIBRATING, COMMAND_LINE_ONLY, COMPUTING, SCORING
from tfnas.cli.running import running, say_loading
from tfnas.searching.reranking.rerank_config import ParseAndRerankConfig

_EXAMPLES = """\
  {command} --model_path runs/search-20250131-120000 --print_lat
      show the network of a run and time it on this machine
  {command} --model_path runs/search-20250131-120000 \\
    --rerank zen,naswot --num_candidates 64
      first rank others of the same latency
  {command} --model_path searched_model_EE.pth.tar \\
    --lookup_path latency_gpu.pkl
      a search checkpoint of the TF-NAS authors' program
  {command} --model_path model.config --num_classes 10
      the same network for 10 classes"""


_GROUPS = (
    FlagGroup("what to read and write", ("model_path", "config_path", "arch", "save_path")),
    FlagGroup("what to compare it with", ("lookup_path", "print_lat", "device", "seed")),
    FlagGroup("what the file does not say, or what to change", ("space", "image_size", "num_classes")),
    FlagGroup("ranking networks of the same latency first", ("rerank", *SCORING, *CALIBRATING, *COMPUTING)),
)
_DESCRIPTION = "Write out the architecture that a search found, and show what it costs."


def main(argv: Sequence[str] | None = None, prog: str = "parsing_model.py") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(
            prog, ParseAndRerankConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, command_line_only=COMMAND_LINE_ONLY
        )
        config = parser.read(command.arguments)
        say_loading(prog)
        from tfnas.report.parse_report import print_report, print_timings
        from tfnas.searching.parsing import parse_model, write_files

        console = Console()
        if config.rerank is not None:
            from tfnas.searching.reranking.rerank import rerank

            rerank(config.rerank_config(), console)
            console.print()
        parsed = parse_model(
            config.model_path or config.config_path,
            arch=config.arch,
            lookup_path=config.lookup_path,
            space=config.space,
            image_size=config.image_size,
            num_classes=config.num_classes,
        )
        written = write_files(parsed, config.save_path)
        print_report(console, parsed, written)
        if config.print_lat:
            from tfnas.bench.timing import time_network
            from tfnas.spaces.families import build_network

            architecture, batches = parsed.architecture, parsed.timed_batches
            timings = time_network(
                lambda: build_network(architecture), architecture.image_size, batches, config.device, config.seed
            )
            print_timings(console, parsed, timings)
    return command.status
