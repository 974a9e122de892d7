"""The bytes of an ONNX file: graph, weights, and in its metadata what a user of the file must know."""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx
import torch

from tfnas.errors import RunFailed
from tfnas.onnx_export import exported

INPUT_NAME, OUTPUT_NAME = "images", "logits"


def onnx_bytes(program: torch.export.ExportedProgram, properties: Mapping[str, str]) -> bytes:
    """The ONNX file of a traced model, weights inside, with `properties` as its metadata.

    Raises RunFailed when the result does not pass ONNX's own checker.
    """
    return with_properties(exported(program, (), INPUT_NAME, OUTPUT_NAME), properties)


def with_properties(model: onnx.ModelProto, properties: Mapping[str, str]) -> bytes:
    """A checked model as bytes, with these properties in place of all others.

    What exporters note at every node (lines of source code, names of PyTorch's) is taken out.
    """
    graph = model.graph
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    onnx.helper.set_model_props(model, dict(properties))
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise RunFailed(f"the exported graph is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def json_text(value: object) -> str:
    """A value as JSON in one line, as metadata hold it."""
    return json.dumps(value, ensure_ascii=False)
