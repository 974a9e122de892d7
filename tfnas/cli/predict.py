"""`tfnas predict --model_path RUN IMAGE...`: the most probable classes of images."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running, say_loading
from tfnas.core.errors import InputError
from tfnas.evaluation.evaluation_config import PredictConfig
from tfnas.utils.progress import waiting

if TYPE_CHECKING:
    from tfnas.evaluation.predicting import Prediction

_EXAMPLES = """\
  {command} --model_path runs/train-20260131-120000 cat.jpg
      the five most probable classes of an image
  {command} --model_path model.onnx --json photos > answers.jsonl
      an exported network, all images in a folder, a line of JSON for each
  {command} --model_path model.pt --top 1 -- -odd-name.png
      a file name that begins with a dash"""


_GROUPS = (
    FlagGroup("IMAGES", (), "Image files, and folders, of which all images are taken, also in subfolders."),
    FlagGroup("what to predict with", ("model_path", "config_path", "arch", "weights")),
    FlagGroup("what to print", ("top", "json")),
    FlagGroup("how", ("batch_size", "device", "threads", "seed")),
)
_DESCRIPTION = "Predict the most probable classes of images."
_MOST_NAMED = 10


def main(argv: Sequence[str] | None = None, prog: str = "tfnas predict") -> int:
    """Run the command on `argv` (default: the process's arguments) and return the exit status."""
    with running(prog, argv) as command:
        parser = FlagParser(prog, PredictConfig, _DESCRIPTION, _GROUPS, _EXAMPLES, positional="images")
        config = parser.read(command.arguments)
        say_loading(prog)
        from tfnas.evaluation.predicting import predict

        count, failed = 0, []
        with waiting(Console(stderr=True), "reading images") as now:
            for answer in predict(config):
                count += 1
                now(f"{count:,} images")
                if answer.problem is not None:
                    failed.append(answer.image)
                    print(f"{prog}: {_printable(answer.problem)}", file=sys.stderr)
                if config.json:
                    print(json.dumps(answer.to_json()))
                elif answer.problem is None:
                    print(_text(answer))
        if failed:
            names = ", ".join(_printable(name) for name in failed[:_MOST_NAMED])
            more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
            others = ", the others were classified" if len(failed) < count else ""
            raise InputError(f"{len(failed)} of {count} images could not be read{others}: {names}{more}")
    return command.status


def _text(answer: Prediction) -> str:
    lines = [f"{100 * found.probability:8.2f} %  {found.name}" for found in answer.classes]
    return "\n".join([_printable(answer.image), *lines])


def _printable(text: str) -> str:
    """File names need not be UTF-8, what is printed must be."""
    return os.fsencode(text).decode(errors="replace")
