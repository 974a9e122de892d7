"""PyTorch's own ONNX exporter, as every part of the package calls it."""

from __future__ import annotations

import warnings

import onnx
import torch
from torch import Tensor, nn

OPSET = 18


def exported(
    model: nn.Module | torch.export.ExportedProgram, arguments: tuple[Tensor, ...], input_name: str, output_name: str
) -> onnx.ModelProto:
    """The ONNX model of a module for an example input, or of a traced program without one; weights inside."""
    with warnings.catch_warnings():
        # torch 2.11 copies a class of its own that it has deprecated.
        warnings.filterwarnings("ignore", r".*LeafSpec\)` is deprecated", FutureWarning)
        program = torch.onnx.export(
            model,
            arguments,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[input_name],
            output_names=[output_name],
            external_data=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto
