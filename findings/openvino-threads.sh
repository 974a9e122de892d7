#!/usr/bin/env bash
# OpenVINO counts the cores once in a process, as its first caller was pinned, and gives fewer threads without a word.
#
# One would guess: INFERENCE_NUM_THREADS=2 gives two threads on a machine with two cores, or an error; and a core that
# becomes free counts again.
# What happens: the CPU plugin reads the process's affinity when it is first asked for anything. A benchmark that pins its
# thread to one core before that, and to more later, computes on one thread for good: compile_model accepts the number,
# get_property shows another, and a new Core() remembers too.
# Seen with OpenVINO 2026.4.1 (Linux): asked for 2 threads, 1 while pinned, 1 after unpinning, 1 from a new Core; 2 in a
# process that was never pinned.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
if [ "$(nproc)" -lt 2 ]; then
    echo "not shown on this processor: two cores are needed"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 openvino==2026.4.1
cat >"$folder/threads.py" <<'PYTHON'
import os
import sys

import numpy as np
import openvino
from openvino import opset13 as operators


def threads(core):
    features = operators.parameter([1, 16, 14, 14], np.float32)
    model = openvino.Model([operators.relu(features)], [features], "relu")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 2, "NUM_STREAMS": 1})
    return compiled.get_property("INFERENCE_NUM_THREADS")


cores = os.sched_getaffinity(0)
core = openvino.Core()
if sys.argv[1:] == ["pinned first"]:
    os.sched_setaffinity(0, {min(cores)})
    pinned = threads(core)
    os.sched_setaffinity(0, cores)
    print(pinned, threads(core), threads(openvino.Core()))
else:
    print(threads(core))
PYTHON
pinned=$("$folder/venv/bin/python" "$folder/threads.py" "pinned first")
free=$("$folder/venv/bin/python" "$folder/threads.py")
echo "pinned first: $pinned (while pinned, after, from a new Core); never pinned: $free"
if [ "$pinned/$free" != "1 1 1/2" ]; then
    echo "CHANGED: 1 1 1 and 2 were seen" >&2
    exit 1
fi
echo "as stated"
