#!/usr/bin/env bash
# The activation that is cheaper in float is the dearer one in int8 (onnxruntime on x86-64).
#
# One would guess: hard swish is swish for devices without exp, made for quantised networks, so in an int8 file it costs
# less than swish (x * sigmoid(x)), and at most as much in float.
# What happens: in float, hard swish disappears into the convolution before it, and swish stays as a node of its own. In
# int8 it is the other way round: swish runs on whole numbers (QLinearSigmoid, QLinearMul), and hard swish is dequantised,
# computed in float by two nodes, and quantised again. A table of latencies must measure each in the numbers of the file.
# Seen with onnxruntime 1.32.0 and onnx 1.23.2 (x86-64), between two convolutions:
#   float, hard swish: nothing; float, swish: QuickGelu
#   int8, hard swish: DequantizeLinear, HardSigmoid, Mul, QuantizeLinear; int8, swish: QLinearSigmoid, QLinearMul
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
if [ "$(uname -m)" != x86_64 ]; then
    echo "not shown on this processor: the fusion in float is that of x86-64"
    exit 0
fi
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
images = np.random.default_rng(0).standard_normal((4, 16, 16, 16)).astype(np.float32)


class Feed(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": images}])

    def get_next(self):
        return next(self.batches, None)


def between(file):
    """The nodes that onnxruntime runs, without the convolutions and what any graph has at its ends."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, "run.onnx"
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    nodes = collections.Counter(node.op_type for node in onnx.load("run.onnx").graph.node)
    for name in ("Conv", "QLinearConv", "Transpose", "ReorderInput", "ReorderOutput"):
        nodes.pop(name, None)
    nodes.subtract([name for name in ("QuantizeLinear", "DequantizeLinear") if name in nodes])  # at the ends
    return sorted((+nodes).elements())


def nodes_of(activation):
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 18]>
        net (float[4, 16, 16, 16] x) => (float[4, 16, 16, 16] y) {{
            a = Conv (x, first)
            {activation}
            y = Conv (b, second)
        }}""")
    for name in ("first", "second"):
        weights = np.random.default_rng(1).standard_normal((16, 16, 1, 1)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    onnx.save(model, "float.onnx")
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static("float.onnx", "int8.onnx", Feed(), per_channel=True, **kinds)
    return {"float": between("float.onnx"), "int8": between("int8.onnx")}


found = {
    "hard swish": nodes_of("b = HardSwish (a)"),
    "swish": nodes_of("s = Sigmoid (a)\n            b = Mul (a, s)"),
}
expected = {
    "hard swish": {"float": [], "int8": ["DequantizeLinear", "HardSigmoid", "Mul", "QuantizeLinear"]},
    "swish": {"float": ["QuickGelu"], "int8": ["QLinearMul", "QLinearSigmoid"]},
}
for name, nodes in found.items():
    print(f"{name}: {nodes}")
if found != expected:
    sys.exit("CHANGED: the nodes are not those of the header")
print("as stated")
PYTHON
