#!/usr/bin/env bash
# ncnn on x86: a float32 file computes its fully connected layers in half precision, but not its 1x1 convolutions.
#
# One would guess: a file with float32 weights is computed in float32 on a processor without float16 arithmetic; and a 1x1
# convolution of one pixel and a fully connected layer of the same weights are one thing.
# What happens: options for half-precision storage are on by default, and of the two InnerProduct heeds them. Its outputs
# are off by 1e-4 and more of the largest, those of Convolution by rounding only. So a squeeze-and-excite is exact or not
# depending on how its pool was written: with an adaptive pool pnnx makes InnerProduct of its convolutions, with a mean
# over two dimensions it leaves Convolution.
# Seen with ncnn 1.0.20261020 (x86-64 with F16C), 64 inputs: InnerProduct 2.9e-4 by default and 1e-7 with use_fp16_packed,
# use_fp16_storage and use_fp16_arithmetic off; Convolution 3e-7 with either.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
if ! grep -qw f16c /proc/cpuinfo; then
    echo "not shown on this processor: it is no x86 processor with F16C"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 ncnn==1.0.20261020
cd "$folder"
venv/bin/python - <<'PYTHON'
import struct
import sys
from pathlib import Path

import ncnn
import numpy as np

INPUTS, OUTPUTS = 64, 32
random = np.random.default_rng(0)
weights = (random.standard_normal((OUTPUTS, INPUTS)) / 8).astype(np.float32)
bias = random.standard_normal(OUTPUTS).astype(np.float32)
features = random.standard_normal(INPUTS).astype(np.float32)
exact = weights.astype(np.float64) @ features + bias
Path("weights.bin").write_bytes(struct.pack("<I", 0) + weights.tobytes() + bias.tobytes())  # 0: float32
LAYERS = {
    "InnerProduct": (f"0={OUTPUTS} 1=1 2={weights.size}", (INPUTS,)),
    "Convolution": (f"0={OUTPUTS} 1=1 5=1 6={weights.size}", (INPUTS, 1, 1)),
}


def error(layer, as_it_is):
    parameters, shape = LAYERS[layer]
    Path("net.param").write_text(f"7767517\n2 2\nInput in 0 1 in0\n{layer} layer 1 1 in0 out0 {parameters}\n")
    net = ncnn.Net()
    if not as_it_is:
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param("net.param") == 0 and net.load_model("weights.bin") == 0
    extractor = net.create_extractor()
    assert extractor.input("in0", ncnn.Mat(np.ascontiguousarray(features.reshape(shape)))) == 0
    status, output = extractor.extract("out0")
    assert status == 0
    return float(np.abs(np.array(output).ravel() - exact).max() / np.abs(exact).max())


found = {(layer, as_it_is): error(layer, as_it_is) for layer in LAYERS for as_it_is in (True, False)}
for (layer, as_it_is), off in found.items():
    print(f"{layer}, {'by default' if as_it_is else 'half precision off'}: {off:.1e} of the largest output")
if [off > 2e-5 for off in found.values()] != [True, False, False, False]:
    sys.exit("CHANGED: InnerProduct by default alone was off by more than rounding")
print("as stated")
PYTHON
