#!/usr/bin/env bash
# Converting an ONNX file to float16: the usual converter cuts weights at 10,000, where float16 goes to 65,504.
#
# One would guess: convert_float_to_float16 rounds each weight to the nearest float16 and at most clips what float16 cannot
# hold. Two functions of this name, one a copy of the other, do the same.
# What happens: onnxconverter-common takes 10,000 for the largest number and 1e-7 for the smallest, so a weight of 20,000,
# which float16 holds exactly, becomes 10,000, and 1e-9 becomes 1e-7 (in float16 1.19e-7), not 0. onnxruntime.transformers
# has the same function with other limits and keeps 20,000 and 60,000. Folded batch norms and constants of normalisation do
# get that large. A Python warning names one weight of each kind.
# Seen with onnxconverter-common 1.16.0 and onnxruntime 1.32.0: 20,000 and 60,000 become 10,000 and 10,000 in one, and
# stay in the other.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 onnx==1.23.2 onnxconverter-common==1.16.0 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnxconverter_common import float16 as common
from onnxruntime.transformers import float16 as transformers

warnings.simplefilter("ignore")
weights = np.array([20000, 60000, 1e-9, 3], np.float32)


def converted(library):
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18]> net (float[4] x) => (float[4] y) { y = Add (x, weights) }""")
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    (result,) = library.convert_float_to_float16(model).graph.initializer
    return [float(value) for value in numpy_helper.to_array(result)]


found = {"onnxconverter-common": converted(common), "onnxruntime.transformers": converted(transformers)}
for name, values in found.items():
    print(f"{weights.tolist()} by {name}: {values}")
cut, whole = found.values()
if (cut[:2], whole[:2]) != ([10000.0, 10000.0], [20000.0, 60000.0]) or not 1e-7 < cut[2] < 1.3e-7:
    sys.exit("CHANGED: 10000 and 10000 in the one, 20000 and 60000 in the other were seen")
print("as stated")
PYTHON
