#!/usr/bin/env bash
# Two switches let PyTorch's float32 on a CPU be bfloat16, each for another part of one network.
#
# One would guess: set_float32_matmul_precision("medium") is about matrix products, and oneDNN's variable
# ONEDNN_DEFAULT_FPMATH_MODE=BF16 about all that oneDNN computes, linear layers included; and what PyTorch reports as its
# precision is what it computes in.
# What happens: the call turns linear layers to bfloat16 and leaves 3x3 convolutions. The variable does the reverse. A 1x1
# convolution goes with the linear layers on one thread, and with the convolutions on two; depthwise ones stay with
# either switch. With the variable set, get_float32_matmul_precision() still says "highest". So a block "in float32" is
# computed partly in bfloat16, and which part depends on the shell, the calling program and the number of threads.
# Seen with torch 2.14.1 on a Xeon with avx512_bf16 and AMX (errors against float64 of 2e-3, elsewhere 1e-6, of the largest
# output); in bfloat16 are:
#   one thread: with the call 1x1 and linear, with the variable 3x3
#   two threads: with the call linear, with the variable 1x1 and 3x3
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
if ! grep -qwE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
    echo "not shown on this processor: it has no bfloat16 instructions that oneDNN would take"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 torch==2.14.1
cat >"$folder/errors.py" <<'PYTHON'
import sys

import torch
from torch import nn

if sys.argv[1:]:
    torch.set_float32_matmul_precision(sys.argv[1])
torch.manual_seed(0)


def error(layer, features):
    with torch.inference_mode():
        found = layer(features).double()
        exact = layer.double()(features.double())
    return float((found - exact).abs().max() / exact.abs().max())


images = torch.randn(4, 64, 28, 28)
errors = {
    "1x1": error(nn.Conv2d(64, 64, 1), images),
    "3x3": error(nn.Conv2d(64, 64, 3, padding=1), images),
    "depthwise": error(nn.Conv2d(64, 64, 3, padding=1, groups=64), images),
    "linear": error(nn.Linear(512, 512), torch.randn(64, 512)),
}
print(f"reported: {torch.get_float32_matmul_precision()}", {name: f"{off:.0e}" for name, off in errors.items()}, file=sys.stderr)
print(*(name for name, off in errors.items() if off > 1e-4))
PYTHON
unset ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE
seen=""
for threads in 1 2; do
    export OMP_NUM_THREADS=$threads
    neither=$("$folder/venv/bin/python" "$folder/errors.py")
    call=$("$folder/venv/bin/python" "$folder/errors.py" medium)
    variable=$(ONEDNN_DEFAULT_FPMATH_MODE=BF16 "$folder/venv/bin/python" "$folder/errors.py")
    echo "$threads threads, in bfloat16: neither switch: ${neither:-none}; the call: $call; the variable: $variable"
    seen+="$neither/$call/$variable;"
done
if [ "$seen" != "/1x1 linear/3x3;/linear/1x1 3x3;" ]; then
    echo "CHANGED: the layers are not those of the header" >&2
    exit 1
fi
echo "as stated"
