"""Modules as ONNX, as the runtimes that are not PyTorch take them.

The package's own layers are written node by node, which takes milliseconds where `torch.onnx.export` takes seconds: a
table needs hundreds of blocks. The nodes are those of an exported file (batch norm is part of the convolution, dropout
and drop-connect are gone, swish is Sigmoid and Mul), so that a block costs what it costs in there. Any other module
goes through `torch.onnx.export`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnx.shape_inference
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tfnas.core.errors import InputError
from tfnas.nn.blocks import Classifier, ConvBN, ConvBNAct, MBConv, SqueezeExcite
from tfnas.nn.network import Network
from tfnas.utils.lazy_names import moved_names
from tfnas.utils.onnx_export import OPSET, exported

INPUT_NAME, OUTPUT_NAME = "input", "output"
IR_VERSION = 10
"""What every onnxruntime from 1.18 on reads."""

_ELEMENT_TYPES = {
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.float64: onnx.TensorProto.DOUBLE,
}

__getattr__ = moved_names(__name__)


def module_to_onnx(module: nn.Module, example_input: Tensor) -> bytes:
    """An ONNX model of a module in evaluation mode, weights inside.

    Its one input, `input`, has the shape and the number type of `example_input`, batch size included, and so have its
    weights; its one output is called `output`. Module and input may be on any device and stay as they are.

    Raises InputError for a number type that ONNX's convolutions do not take.
    """
    if example_input.dtype not in _ELEMENT_TYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _ELEMENT_TYPES)
        given = str(example_input.dtype).removeprefix("torch.")
        raise InputError(f"--dtype must be one of {known} for a runtime that takes ONNX, got {given}")
    graph = _Graph(example_input.dtype, example_input.shape[0])
    try:
        output = graph.add(module, INPUT_NAME)
    except _UnknownModule:
        return _exported(module, example_input)
    return graph.finished(output, list(example_input.shape))


class _UnknownModule(Exception):
    """The module, or one inside it, is none of the package's own."""


class _Graph:
    """Nodes and weights written so far. Values are referred to by their names."""

    def __init__(self, dtype: torch.dtype, batch_size: int) -> None:
        self._dtype, self._batch_size = dtype, batch_size
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, module: nn.Module, features: str) -> str:
        """Write a module that receives `features`; the name of what it gives.

        Raises _UnknownModule. A subclass counts as unknown, because it may compute something else.
        """
        write = _WRITERS.get(type(module))
        if write is None:
            raise _UnknownModule
        return write(self, module, features)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Write one node; the name of its output."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def weights(self, values: Tensor) -> str:
        """Write weights, in the graph's number type."""
        return self._constant(values.detach().to("cpu", self._dtype).contiguous())

    def integers(self, values: Sequence[int]) -> str:
        """Write axes or a shape."""
        return self._constant(torch.tensor(values, dtype=torch.int64))

    def _constant(self, values: Tensor) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values.numpy(), name))
        return name

    def mean(self, features: str) -> str:
        """Write the mean over all pixels, N x C x 1 x 1."""
        return self.node("GlobalAveragePool", features)

    def rows(self, features: str, channels: int) -> str:
        """Write the change of shape from N x C x 1 x 1 to N x C."""
        return self.node("Reshape", features, self.integers((self._batch_size, channels)))

    def finished(self, output: str, input_shape: list[int]) -> bytes:
        """The model whose result is `output`, that of the last node."""
        assert list(self._nodes[-1].output) == [output]
        self._nodes[-1].output[0] = OUTPUT_NAME
        element_type = _ELEMENT_TYPES[self._dtype]
        graph = helper.make_graph(
            self._nodes,
            "tfnas",
            [helper.make_tensor_value_info(INPUT_NAME, element_type, input_shape)],
            [helper.make_tensor_value_info(OUTPUT_NAME, element_type, None)],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="tfnas", opset_imports=opsets, ir_version=IR_VERSION)
        data: bytes = onnx.shape_inference.infer_shapes(model, strict_mode=True).SerializeToString(deterministic=True)
        return data


def _conv_bn(graph: _Graph, module: ConvBN, features: str) -> str:
    # Folded in double precision: in half precision a small variance would be lost.
    folded = fuse_conv_bn_eval(copy.deepcopy(module.conv).double(), copy.deepcopy(module.bn).double())
    return graph.add(folded, features)


def _conv_bn_act(graph: _Graph, module: ConvBNAct, features: str) -> str:
    return graph.add(module.act, _conv_bn(graph, module, features))


def _relu(graph: _Graph, module: nn.ReLU, features: str) -> str:  # noqa: ARG001
    return graph.node("Relu", features)


def _swish(graph: _Graph, module: nn.SiLU, features: str) -> str:  # noqa: ARG001
    return graph.node("Mul", features, graph.node("Sigmoid", features))


def _conv(graph: _Graph, module: nn.Conv2d, features: str) -> str:
    if module.bias is None or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise _UnknownModule
    return graph.node(
        "Conv",
        features,
        graph.weights(module.weight),
        graph.weights(module.bias),
        kernel_shape=module.kernel_size,
        strides=module.stride,
        pads=[int(padding) for padding in module.padding] * 2,
        dilations=module.dilation,
        group=module.groups,
    )


def _squeeze_excite(graph: _Graph, module: SqueezeExcite, features: str) -> str:
    squeezed = graph.add(module.act, graph.add(module.conv_reduce, graph.mean(features)))
    gate = graph.node("Sigmoid", graph.add(module.conv_expand, squeezed))
    return graph.node("Mul", features, gate)


def _mb_conv(graph: _Graph, module: MBConv, features: str) -> str:
    branch = features
    if module.inverted_bottleneck is not None:
        branch = graph.add(module.act, graph.add(module.inverted_bottleneck, branch))
    branch = graph.add(module.act, graph.add(module.depth_conv, branch))
    if module.squeeze_excite is not None:
        branch = graph.add(module.squeeze_excite, branch)
    branch = graph.add(module.point_linear, branch)
    return graph.node("Add", features, branch) if module.has_residual else branch


def _sequential(graph: _Graph, module: nn.Sequential, features: str) -> str:
    for part in module:
        features = graph.add(part, features)
    return features


def _classifier(graph: _Graph, module: Classifier, features: str) -> str:
    linear = module.linear
    pooled = graph.rows(graph.mean(features), linear.in_features)
    return graph.node("Gemm", pooled, graph.weights(linear.weight), graph.weights(linear.bias), transB=1)


def _network(graph: _Graph, module: Network, images: str) -> str:
    stages = (module.get_submodule(name) for name in module.stage_names)
    features = images
    for part in (module.first_stem, module.second_stem, *stages, module.feature_mix_layer, module.classifier):
        features = graph.add(part, features)
    return features


_WRITERS: dict[type[nn.Module], Callable[[_Graph, Any, str], str]] = {
    nn.ReLU: _relu,
    nn.SiLU: _swish,
    nn.Conv2d: _conv,
    nn.Sequential: _sequential,
    ConvBN: _conv_bn,
    ConvBNAct: _conv_bn_act,
    SqueezeExcite: _squeeze_excite,
    MBConv: _mb_conv,
    Classifier: _classifier,
    Network: _network,
}


def _exported(module: nn.Module, example_input: Tensor) -> bytes:
    """What PyTorch's own exporter writes."""
    copied = copy.deepcopy(module).to("cpu", example_input.dtype).eval().requires_grad_(False)
    with torch.no_grad():
        model = exported(copied, (example_input.detach().cpu(),), INPUT_NAME, OUTPUT_NAME)
    data: bytes = model.SerializeToString()
    return data
