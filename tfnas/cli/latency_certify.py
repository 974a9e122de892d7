"""`tfnas latency certify FILE`: time an exported file and certify its latency."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import ResultPrinter, running, say_loading
from tfnas.core.errors import Infeasible
from tfnas.searching.refitting.refit_config import CertifyConfig
from tfnas.utils.progress import spending
from tfnas.utils.text import clock, parse_seconds, say

_EXAMPLES = """\
  {command} model.onnx
      single images on one thread, to within a third of a percent
  {command} --batch 32 --target_lat 15 --epsilon 2% model.onnx
      exit status 0 within 2 % of 15 ms, else 3
  {command} runs/train-20260131-120000
      the trained network in PyTorch"""


_GROUPS = (
    FlagGroup("in place of FILE", ("config_path", "arch")),
    FlagGroup("what to compare it with", ("target_lat", "epsilon")),
    FlagGroup("how to run it", ("batch", "threads", "device", "seed")),
    FlagGroup("how long, and where to write the certificate", ("time_budget", "out")),
)
_DESCRIPTION = """\
Time an exported file or a trained network, and report its latency and how
reliable that figure is."""


def main(argv: Sequence[str] | None = None, prog: str = "tfnas latency certify") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(prog, CertifyConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, positional="file")
        config = parser.read(command.arguments)
        say_loading(prog)
        from tfnas.searching.refitting.certificate import verdict_text
        from tfnas.searching.refitting.certify import FileCertificate, certify_file

        most = clock(parse_seconds("time_budget", config.time_budget))
        with ExitStack() as shown:
            on_spent = shown.enter_context(spending(Console(stderr=True), f"timing {config.subject}, {most} at most"))

            def show(found: FileCertificate) -> None:
                for line in found.lines():
                    say(Console(), line)

            on_found = ResultPrinter(shown, show)
            report = certify_file(config, on_spent=on_spent, on_found=on_found)
        on_found.finish()
        say(Console(), f"written   {report.written}")
        if report.target_ms is not None and report.verdict != "inside":
            raise Infeasible(verdict_text(report.found, report.target_ms, report.epsilon))
    return command.status
