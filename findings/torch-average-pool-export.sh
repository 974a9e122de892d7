#!/usr/bin/env bash
# AdaptiveAvgPool2d(1) leaves PyTorch as a pool or as a reduction, depending on the exporter.
#
# One would guess: nn.AdaptiveAvgPool2d(1) becomes ONNX's GlobalAveragePool, which is the same thing by name and by result;
# it did with the exporter that PyTorch had for years.
# What happens: the exporter that is the default now writes ReduceMean, for the module as for x.mean((2, 3)). Results
# are equal, but runtimes treat the two apart: onnxruntime has no integer kernel for the one, and MNN changes layouts
# around it. A file exported anew with a newer PyTorch can be slower than the old one.
# Seen with torch 2.14.1, onnx 1.23.2 and onnxscript 0.7.2: dynamo=True: ReduceMean; dynamo=False: GlobalAveragePool.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
import warnings

import onnx
import torch
from torch import nn

warnings.simplefilter("ignore")
images = torch.zeros(2, 3, 8, 8)


def pool_node(dynamo):
    file = io.BytesIO()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1)).eval()
    if dynamo:
        graph = torch.onnx.export(model, (images,), dynamo=True, verbose=False).model_proto.graph
    else:
        torch.onnx.export(model, (images,), file, dynamo=False)
        graph = onnx.load_model_from_string(file.getvalue()).graph
    return graph.node[-1].op_type


found = {"the default (dynamo=True)": pool_node(True), "the former (dynamo=False)": pool_node(False)}
print(found)
if list(found.values()) != ["ReduceMean", "GlobalAveragePool"]:
    sys.exit("CHANGED: ReduceMean and GlobalAveragePool were seen")
print("as stated")
PYTHON
