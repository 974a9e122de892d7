"""`tfnas export --model_path RUN --format onnx`: a trained network as a file to ship, checked and timed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import ResultPrinter, running, say_loading
from tfnas.export.export_config import ExportConfig
from tfnas.utils.progress import waiting

_EXAMPLES = """\
  {command} --model_path runs/train-20260131-120000
      model.onnx in the run directory, for any batch size
  {command} --model_path runs/train-20260131-120000 \\
    --quantize int8
      8-bit, calibrated on training images and compared with float32
  {command} --model_path model.pt --format torch_export \\
    --img_root photos --out model.pt2
      a model file on its own, checked on your own images"""


_GROUPS = (
    FlagGroup("what to write", ("model_path", "config_path", "arch", "weights", "format", "out")),
    FlagGroup("what it computes", ("image_size", "batch", "dtype", "quantize", "opset")),
    FlagGroup("checks and calibration", ("check_images", "calibration_images", "img_root", "seed")),
    FlagGroup("timing", ("measure_batch", "threads")),
)
_DESCRIPTION = "Export a trained network to one file, check the file by running it, and time it."


def main(argv: Sequence[str] | None = None, prog: str = "tfnas export") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        config = FlagParser(prog, ExportConfig, _DESCRIPTION, _GROUPS, _EXAMPLES).read(command.arguments)
        say_loading(prog)
        from tfnas.export.export_report import ExportReport
        from tfnas.export.exporting import export_model
        from tfnas.report.model_report import print_export

        with ExitStack() as shown:
            on_step = shown.enter_context(waiting(Console(stderr=True), "opening the model and the images"))
            on_report = ResultPrinter[ExportReport](shown, lambda found: print_export(Console(), found))
            export_model(config, on_step=on_step, on_report=on_report)
        on_report.finish()
    return command.status
