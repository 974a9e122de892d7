"""In which numbers an ONNX file computes, read from the file itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
from onnx import TensorProto

_FLOATS = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
_WEIGHTS_OF_8_BITS = (TensorProto.INT8, TensorProto.UINT8)
_QUANTISING = {
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
}


def number_type(model: onnx.ModelProto) -> str:
    """`float32`, `float16` and so on, by the type that most weights have; `int8` where activations are quantised too.

    A file whose 8-bit weights are only stored so computes in the type that its other numbers have.
    """
    counts: Counter[int] = Counter()
    for tensor in _constants(model.graph):
        count = 1
        for length in tensor.dims:
            count *= length
        counts[tensor.data_type] += count
    floats = {kind: counts[kind] for kind in _FLOATS if counts[kind]}
    widest = max(floats, key=lambda kind: floats[kind], default=TensorProto.FLOAT)
    of_8_bits = sum(counts[kind] for kind in _WEIGHTS_OF_8_BITS)
    quantises = any(node.op_type in _QUANTISING for node in model.graph.node)
    return "int8" if quantises and of_8_bits > sum(floats.values()) else _FLOATS[widest]


def _constants(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)
