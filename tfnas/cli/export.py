"""`tfnas export --model_path RUN --format onnx`: a trained network as a file to ship, checked and timed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from tfnas.cli.edge import ShownFirst, run_command, say_loading
from tfnas.cli.groups import FlagGroup

_EXAMPLES = """\
  {command} --model_path runs/train-20260131-120000
      model.onnx in the run directory, for any batch size
  {command} --model_path runs/train-20260131-120000 \\
    --quantize int8
      8-bit, calibrated on training images; accuracy and latency beside float32
  {command} --model_path model.pt --format torch_export \\
    --img_root photos --out model.pt2
      a lone model file, checked on pictures of your own"""


_GROUPS = (
    FlagGroup("what to write", ("model_path", "format", "out")),
    FlagGroup("what it computes", ("image_size", "batch", "dtype", "quantize", "opset")),
    FlagGroup("what to check and calibrate with", ("check_images", "calibration_images", "img_root", "seed")),
    FlagGroup("what to time", ("measure_batch", "threads")),
)


def main(argv: Sequence[str] | None = None, prog: str = "tfnas export") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    return run_command(prog, lambda arguments: _export(prog, arguments), argv)


def _export(prog: str, arguments: Sequence[str]) -> None:
    from rich.console import Console

    from tfnas.cli.flags import FlagParser
    from tfnas.export.export_config import ExportConfig

    description = "Write a trained network as one file to ship, checked by running it, and timed."
    config = FlagParser(prog, ExportConfig, description, _GROUPS, _EXAMPLES).read(arguments)
    say_loading(prog)
    from tfnas.export.export_report import ExportReport
    from tfnas.export.exporting import export_model
    from tfnas.report.export_text import print_export
    from tfnas.utils.progress import waiting

    with ExitStack() as shown:
        on_step = shown.enter_context(waiting(Console(stderr=True), "opening the model and the images"))
        on_report = ShownFirst[ExportReport](shown, lambda found: print_export(Console(), found))
        export_model(config, on_step=on_step, on_report=on_report)
    on_report.finish()
