#!/usr/bin/env bash
# Caches keyed by joblib's or dask's hash of a network never hit.
#
# One would guess: joblib.hash and dask's tokenize are there to recognise equal inputs, and equal tensors, or a network and
# its deep copy, count as equal, as numpy arrays do. So joblib.Memory around score(network) saves what was computed.
# What happens: PyTorch's tensors are hashed by a pickle that holds the identity of their storage. Equal tensors, a module
# and its copy, and one tensor in two processes get different hashes, without a warning; the cache grows and never
# answers. One must key by text and seed, or by the bytes of the weights.
# Seen with torch 2.14.1, joblib 1.6.0 and dask 2026.8.0: equal for numpy arrays, different for all of these.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 torch==2.14.1 joblib==1.6.0 dask==2026.8.0
"$folder/venv/bin/python" - <<'PYTHON'
import copy
import subprocess
import sys

import joblib
import torch
from dask.base import tokenize
from torch import nn

tensor, network = torch.arange(12.0), nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
pairs = {
    "numpy arrays": (tensor.numpy(), tensor.numpy().copy()),
    "tensors": (tensor, tensor.clone()),
    "a network and its copy": (network, copy.deepcopy(network)),
}
found = {}
for name, (first, second) in pairs.items():
    found[name] = (joblib.hash(first) == joblib.hash(second), tokenize(first) == tokenize(second))
    print(f"{name}: equal by joblib {found[name][0]}, by dask {found[name][1]}")
program = "import joblib, torch; print(joblib.hash(torch.arange(12.0)))"
hashes = {subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(2)}
print("one tensor in two processes: equal by joblib", len(hashes) == 1)
if len(hashes) != 2 or list(found.values()) != [(True, True), (False, False), (False, False)]:
    sys.exit("CHANGED: equal for arrays only was seen, and different in two processes")
print("as stated")
PYTHON
