#!/usr/bin/env bash
# onnxruntime's default for static quantisation leaves the convolutions beside a residual in float on x86-64.
#
# One would guess: quantize_static with its default, signed 8-bit activations, gives a network that runs in 8 bits; signed
# or unsigned is a matter of one zero point.
# What happens: on x86-64 a signed tensor is turned into an unsigned one only where it has one reader. Whatever has two
# (the input of a residual block, of squeeze-and-excite, of x * sigmoid(x)) stays signed, and the convolution that reads
# it runs in float between DequantizeLinear and QuantizeLinear, and so does the addition. Unsigned activations leave none.
# Seen with onnxruntime 1.32.0 and onnx 1.23.2 (x86-64), a residual of two convolutions:
#   signed (the default): 1 Conv and 1 Add in float, 1 QLinearConv; unsigned: 2 QLinearConv, 1 QLinearAdd
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
if [ "$(uname -m)" != x86_64 ]; then
    echo "not shown on this processor: others have kernels for signed activations"
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


model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["": 18]>
    residual (float[4, 16, 16, 16] x) => (float[4, 16, 16, 16] y) {
        a = Conv (x, first)
        b = Conv (a, second)
        y = Add (x, b)
    }""")
for name in ("first", "second"):
    weights = np.random.default_rng(1).standard_normal((16, 16, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
onnx.save(model, "float.onnx")


def computing_nodes(**kinds):
    quantize_static("float.onnx", "int8.onnx", Feed(), per_channel=True, **kinds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, "run.onnx"
    onnxruntime.InferenceSession("int8.onnx", options, providers=["CPUExecutionProvider"])
    nodes = collections.Counter(node.op_type for node in onnx.load("run.onnx").graph.node)
    return {name: count for name, count in nodes.items() if "Conv" in name or "Add" in name}


signed = computing_nodes()
unsigned = computing_nodes(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
print("signed, the default:", signed)
print("unsigned:", unsigned)
if (signed, unsigned) != ({"Conv": 1, "QLinearConv": 1, "Add": 1}, {"QLinearConv": 2, "QLinearAdd": 1}):
    sys.exit("CHANGED: the nodes are not those of the header")
print("as stated")
PYTHON
