"""`tfnas latency certify FILE`: time an exported file and say what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from tfnas.cli.edge import ShownFirst, say_loading
from tfnas.cli.groups import FlagGroup
from tfnas.core.errors import Infeasible

_EXAMPLES = """\
  {command} model.onnx
      single images on one thread, known to a third of a percent
  {command} --batch 32 --target_lat 15 --epsilon 2% model.onnx
      exit status 0 within 2 % of 15 ms, else 3
  {command} runs/train-20260131-120000
      the trained network in PyTorch"""


_GROUPS = (
    FlagGroup("what to hold it against", ("target_lat", "epsilon")),
    FlagGroup("how to run it", ("batch", "threads", "device", "seed")),
    FlagGroup("how long, and where the certificate goes", ("time_budget", "out")),
)
_DESCRIPTION = """\
Time an exported file, or a trained network, and say what it takes and how far
that can be trusted."""


def run(prog: str, arguments: Sequence[str]) -> None:
    """Run the command."""
    from rich.console import Console

    from tfnas.cli.flags import FlagParser
    from tfnas.searching.refitting.refit_config import CertifyConfig
    from tfnas.utils.text import clock, say

    config = FlagParser(prog, CertifyConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, words="file").read(arguments)
    say_loading(prog)
    from tfnas.searching.refitting.certificate import verdict_text
    from tfnas.searching.refitting.certify import FileCertificate, certify_file
    from tfnas.utils.progress import spending
    from tfnas.utils.text import seconds_of

    most = clock(seconds_of("time_budget", config.time_budget))
    with ExitStack() as shown:
        on_spent = shown.enter_context(spending(Console(stderr=True), f"timing {config.file[0]}, {most} at most"))

        def show(found: FileCertificate) -> None:
            for line in found.lines():
                say(Console(), line)

        on_found = ShownFirst(shown, show)
        report = certify_file(config, on_spent=on_spent, on_found=on_found)
    on_found.finish()
    say(Console(), f"written   {report.written}")
    if report.target_ms is not None and report.verdict != "inside":
        raise Infeasible(verdict_text(report.found, report.target_ms, report.epsilon))
