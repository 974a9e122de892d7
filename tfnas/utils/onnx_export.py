"""PyTorch's own ONNX exporter, as every part of the package calls it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import onnx
import torch
from onnx import helper, numpy_helper, version_converter
from torch import Tensor, nn

from tfnas.core.errors import RunFailed

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
    use_global_average_pool(proto.graph)
    return proto


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in another version of ONNX's operators, with the oldest form of file that has it.

    PyTorch's exporter writes opset 18 in place of any lower one that it is asked for (torch 2.14), so onnx converts.

    Raises RunFailed where the installed onnx does not know the version, or cannot take an operator to it.
    """
    try:
        found: onnx.ModelProto = model if opset == OPSET else version_converter.convert_version(model, opset)
        found.ir_version = helper.find_min_ir_version_for(found.opset_import)
    except (RuntimeError, ValueError) as error:
        raise RunFailed(
            f"onnx {onnx.__version__} cannot write this network in opset {opset}: {' '.join(str(error).split())[-200:]}"
        ) from error
    return found


def use_global_average_pool(graph: onnx.GraphProto) -> None:
    """Write each mean over all pixels of an N x C x H x W tensor as GlobalAveragePool, in place.

    PyTorch's exporter writes a mean over two axes, and adaptive average pooling to one pixel, as ReduceMean, for which
    onnxruntime has neither an integer kernel nor one in the blocked layout of its float convolutions: every
    squeeze-and-excite would pay for conversions. Where the two axes are dropped, Flatten drops them. Means over other
    axes, and of tensors whose rank the graph does not state, stay.
    """
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    axes_inputs: set[str] = set()
    for node in graph.node:
        if node.op_type == "ReduceMean" and ranks.get(node.input[0]) == 4 and _reduced_axes(node, constants) == {2, 3}:
            nodes += _global_average_pool(node)
            axes_inputs.update(node.input[1:])
        else:
            nodes.append(node)
    unused = axes_inputs - {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name not in unused]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)


def _reduced_axes(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> set[int]:
    """The axes of a ReduceMean of a tensor of rank 4, counted from the front; empty where they are not constant."""
    if len(node.input) > 1:  # an input since opset 18, an attribute before
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist() if node.input[1] in constants else []
    else:
        axes = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"), [])
    return {axis % 4 for axis in axes}


def _global_average_pool(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that take the place of a ReduceMean over both axes of the pixels."""
    (features, *_), (output,) = node.input, node.output
    if all(attribute.i for attribute in node.attribute if attribute.name == "keepdims"):
        return [helper.make_node("GlobalAveragePool", [features], [output], node.name)]
    pooled = f"{output}_pooled"
    return [
        helper.make_node("GlobalAveragePool", [features], [pooled], node.name),
        helper.make_node("Flatten", [pooled], [output], f"{node.name}_flatten", axis=1),
    ]
