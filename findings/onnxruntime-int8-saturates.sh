#!/usr/bin/env bash
# One int8 file, half the value on another x86 processor.
#
# One would guess: integers are exact, so a quantised network gives the same answers on every processor.
# What happens: on x86 processors without VNNI onnxruntime multiplies unsigned activations by signed weights with an
# instruction that adds two products in 16 bits and saturates. Large activations that meet large weights lose up to half
# of their sum, with no warning. Weights of reduced range (7 bits) and unsigned weights are exact everywhere. A network
# that agreed with float32 on all of its test images with VNNI agreed on 60 to 90 % of them without.
# Seen with onnxruntime 1.32.0 on an AMD EPYC with AVX2 and in an emulated Haswell, for 64 products of 255 and 127 whose
# sum is scaled to 100: 51 without VNNI, 100 with it; 100 for weights of 64, and for unsigned weights, on both.
#
# On a processor with VNNI this is shown in emulation, where qemu-x86_64 (Debian's package qemu-user) is installed.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
run=()
if [ "$(uname -m)" != x86_64 ] || ! grep -qw avx2 /proc/cpuinfo; then
    echo "not shown on this processor: it is no x86 processor with AVX2"
    exit 0
elif grep -qwE 'avx_vnni|avx512_vnni' /proc/cpuinfo; then
    if ! command -v qemu-x86_64 >/dev/null || ! qemu-x86_64 -cpu Haswell-v1 /bin/true 2>/dev/null; then
        echo "not shown on this processor: it has VNNI, and there is no qemu-x86_64 that emulates one without"
        exit 0
    fi
    run=(qemu-x86_64 -cpu Haswell-v1)
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
OPENBLAS_NUM_THREADS=1 "${run[@]}" venv/bin/python - <<'PYTHON' 2> >(grep -v "doesn't support requested feature" >&2)
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


def answer(weight, kind):
    """64 products of 255 and the weight, added up and scaled to 100."""
    scale = np.float32(255 * weight * 64 / 100)
    constants = {
        "one": np.float32(1), "zero": np.uint8(0), "weight_zero": kind(0), "scale": scale,
        "weights": np.full((8, 64, 1, 1), weight, kind),
    }  # fmt: skip
    inputs = ["x", "one", "zero", "weights", "one", "weight_zero", "scale", "zero"]
    shape = [1, 64, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", inputs, ["y"])],
        "sum",
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return sorted({int(value) for value in session.run(None, {"x": np.full(shape, 255, np.uint8)})[0].flat})


found = {
    "signed weights of 127": answer(127, np.int8),
    "signed weights of 64": answer(64, np.int8),
    "unsigned weights of 255": answer(255, np.uint8),
}
print(found)
if list(found.values()) != [[51], [100], [100]]:
    sys.exit("CHANGED: 51, 100 and 100 were seen without VNNI")
print("as stated")
PYTHON
