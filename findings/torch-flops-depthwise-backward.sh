#!/usr/bin/env bash
# torch's flop counter: the backward pass of a depthwise convolution costs 65 times its forward pass.
#
# One would guess: a convolution's backward pass is two products of the forward's size (one for its input, one for its
# weights), so twice the forward; FlopCounterMode says so for a plain convolution.
# What happens: for the gradient of the weights, groups are not taken into account, so that of a convolution in G groups is
# counted G times too high: 1 + G times the forward in all. Training a network of depthwise convolutions seems to
# cost many times what it does, and comparisons of training cost by this counter favour plain convolutions.
# Seen with torch 2.14.1, 64 channels, 3x3, 56 x 56: forward 3,612,672; backward 234,823,680, which is 65 times; with one
# group 2 times.
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq numpy==2.4.6 torch==2.14.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def counted(groups):
    """Operations of the forward and of the backward pass."""
    convolution = nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False)
    features = torch.randn(1, 64, 56, 56, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        result = convolution(features)
    with FlopCounterMode(display=False) as backward:
        result.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


found = {groups: counted(groups) for groups in (1, 8, 64)}
for groups, (forward, backward) in found.items():
    print(f"{groups} groups: forward {forward:,}, backward {backward:,}, {backward / forward:g} times")
if [backward / forward for forward, backward in found.values()] != [2, 9, 65]:
    sys.exit("CHANGED: 2, 9 and 65 times were seen")
print("as stated")
PYTHON
