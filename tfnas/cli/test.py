"""`python test.py --model_path RUN`: how good a trained network is on images (also `tfnas test`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import ResultPrinter, running, say_loading
from tfnas.evaluation.evaluation_config import EvaluationConfig
from tfnas.utils.progress import waiting

_EXAMPLES = """\
  {command} --model_path runs/train-20260131-120000
      a training run on its own test images
  {command} --model_path runs/train-20260131-120000 \\
    --val_root photos
      the same network on your images, one folder per class
  {command} --val_root IMAGENET/val --val_list val.txt \\
    --config_path model.config --weights model_best.pth.tar
      a network of the TF-NAS authors' program"""


_GROUPS = (
    FlagGroup("what to test", ("model_path", "config_path", "arch", "weights")),
    FlagGroup("on what", ("val_root", "val_list", "class_names", "num_classes", "image_size")),
    FlagGroup("how", ("batch_size", "device", "threads", "workers", "print_freq", "seed", "out")),
)
_DESCRIPTION = "Test a trained network on images: accuracy, loss, results per class, speed."


def main(argv: Sequence[str] | None = None, prog: str = "test.py") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        config = FlagParser(prog, EvaluationConfig, _DESCRIPTION, _GROUPS, _EXAMPLES).read(command.arguments)
        say_loading(prog)
        from tfnas.evaluation.evaluating import evaluate
        from tfnas.evaluation.evaluation_report import EvaluationReport
        from tfnas.report.model_report import print_evaluation, print_files, progress_line

        with ExitStack() as shown:
            shown.enter_context(waiting(Console(stderr=True), "testing"))

            def on_progress(done: int, count: int, seconds: float) -> None:
                print(f"{prog}: {progress_line(done, count, seconds)}", file=sys.stderr)

            on_found = ResultPrinter[EvaluationReport](shown, lambda found: print_evaluation(Console(), found))
            report = evaluate(config, on_progress=on_progress, on_found=on_found)
        on_found.finish()
        print_files(Console(), report)
    return command.status
