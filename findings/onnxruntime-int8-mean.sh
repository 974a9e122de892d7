#!/usr/bin/env bash
# Squeeze-and-excite's pool in onnxruntime's int8: two spellings of one mean, of which one stays in float.
#
# One would guess: ReduceMean over height and width and GlobalAveragePool are the same mean, so an int8 file runs the same
# with either. PyTorch's exporter writes ReduceMean, so this is what most files have.
# What happens: GlobalAveragePool becomes QLinearGlobalAveragePool and everything between the convolutions is whole
# numbers. ReduceMean has no such kernel: the map is dequantised, averaged in float and quantised again, in each
# squeeze-and-excite. The outputs are the same.
# Seen with onnxruntime 1.32.0 and onnx 1.23.2 on x86-64:
#   GlobalAveragePool: 2 QLinearConv, 1 QLinearGlobalAveragePool, 1 QuantizeLinear, 1 DequantizeLinear
#   ReduceMean: 2 QLinearConv, 1 ReduceMean, 2 QuantizeLinear, 2 DequantizeLinear
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 sympy==1.14.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import collections
import logging
import sys

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

logging.disable(logging.WARNING)
random = np.random.default_rng(0)
images = random.standard_normal((4, 8, 16, 16)).astype(np.float32)


class Feed(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": images}])

    def get_next(self):
        return next(self.batches, None)


def quantised(pool, axes=()):
    """Convolution, pool, convolution, in 8 bits; the nodes that onnxruntime runs, and the result."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 18]>
        net (float[4, 8, 16, 16] x) => (float[4, 8, 1, 1] y) {{
            a = Conv (x, first)
            m = {pool}
            y = Conv (m, second)
        }}""")
    for name in ("first", "second"):
        weights = np.random.default_rng(1).standard_normal((8, 8, 1, 1)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    if axes:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes), "axes"))
    onnx.save(model, "float.onnx")
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static("float.onnx", "int8.onnx", Feed(), per_channel=True, **kinds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, "run.onnx"
    session = onnxruntime.InferenceSession("int8.onnx", options, providers=["CPUExecutionProvider"])
    nodes = collections.Counter(node.op_type for node in onnx.load("run.onnx").graph.node)
    nodes.pop("Transpose", None)  # of layouts, which differ by processor
    return dict(nodes), session.run(None, {"x": images})[0]


pooled, first = quantised("GlobalAveragePool (a)")
reduced, second = quantised("ReduceMean <keepdims = 1> (a, axes)", (2, 3))
print("GlobalAveragePool:", pooled)
print("ReduceMean:", reduced)
print("largest difference of the outputs:", np.abs(first - second).max())
expected = {"QuantizeLinear": 1, "QLinearConv": 2, "QLinearGlobalAveragePool": 1, "DequantizeLinear": 1}
in_float = {"QuantizeLinear": 2, "QLinearConv": 2, "ReduceMean": 1, "DequantizeLinear": 2}
if (pooled, reduced) != (expected, in_float):
    sys.exit("CHANGED: the nodes are not those of the header")
print("as stated")
PYTHON
