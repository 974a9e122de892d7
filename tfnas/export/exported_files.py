"""The bytes of an ONNX file: graph, weights, and in its metadata what a user of the file must know.

The last property, `sha256`, is a checksum of the file's bytes with 64 zeros in its own place: ONNX has none.

The bytes of a torch.export file (.pt2), and running one that was just written.

torch.export.load falls back on full unpickling, which can run code. So only files of this process are loaded here,
never one that a user names.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from tfnas.core.errors import InputError, RunFailed
from tfnas.utils.onnx_export import OPSET, converted, exported

INPUT_NAME, OUTPUT_NAME = "images", "logits"
CHECKSUM = "sha256"
_NO_CHECKSUM = b"0" * (2 * hashlib.sha256().digest_size)


def onnx_bytes(program: torch.export.ExportedProgram, properties: Mapping[str, str], opset: int = OPSET) -> bytes:
    """The ONNX file of a traced model, weights inside, with `properties` as its metadata.

    Raises RunFailed when it cannot be written in this opset, or does not pass ONNX's own checker.
    """
    return with_properties(converted(exported(program, (), INPUT_NAME, OUTPUT_NAME), opset), properties)


def with_properties(model: onnx.ModelProto, properties: Mapping[str, str]) -> bytes:
    """A checked model as bytes, with these properties and a checksum in place of all others.

    What exporters note at every node (lines of source code, names of PyTorch's) is taken out.
    """
    graph = model.graph
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    onnx.helper.set_model_props(model, {**properties, CHECKSUM: _NO_CHECKSUM.decode()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise RunFailed(f"the exported graph is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    before, _, after = data.rpartition(_NO_CHECKSUM)
    return before + hashlib.sha256(data).hexdigest().encode() + after


def verify_checksum(data: bytes, properties: Mapping[str, str], file: str) -> None:
    """Compare the bytes of a file with the checksum in its properties; files of earlier versions have none.

    Raises InputError where they differ.
    """
    if CHECKSUM not in properties:
        return
    written = properties[CHECKSUM].encode()
    before, found, after = data.rpartition(written) if written else (data, b"", b"")
    if not found or hashlib.sha256(before + _NO_CHECKSUM + after).hexdigest().encode() != written:
        raise InputError(
            f"{file} differs from its own checksum: it is damaged, or another program has changed it. Copy it again, "
            "or export the network again"
        )


def json_text(value: object) -> str:
    """A value as JSON in one line, as metadata hold it."""
    return json.dumps(value, ensure_ascii=False)


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
