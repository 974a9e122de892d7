"""The bytes of a torch.export file (.pt2), and running one that was just written.

torch.export.load falls back on full unpickling, which can run code. So only files of this process are loaded here,
never one that a user names.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfnas.errors import RunFailed
from tfnas.export.onnx_file import json_text

PROPERTIES_FILE = "tfnas.json"


def torch_export_bytes(program: torch.export.ExportedProgram, properties: Mapping[str, Any]) -> bytes:
    """The .pt2 file of a traced model, weights inside, `properties` in its extra file `tfnas.json`."""
    program.example_inputs = None  # a batch of zeros as large as the pictures, which nobody needs
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={PROPERTIES_FILE: json_text(dict(properties))})
    return buffer.getvalue()


def load_own(path: Path) -> Callable[[Tensor], Tensor]:
    """What runs a .pt2 file that this process has just written. Raises RunFailed when it cannot be read back."""
    try:
        with warnings.catch_warnings():
            # torch 2.11 makes tensors on the bytes it has read, which cannot be written; nobody writes to weights here.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            program = torch.export.load(io.BytesIO(path.read_bytes()))
        module = program.module()
    except (RuntimeError, KeyError, ValueError, AssertionError, OSError) as error:
        raise RunFailed(f"the file was written, but torch.export cannot load it again: {error}") from error

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(images)
        return logits

    return run
