#!/usr/bin/env bash
# Six counters, six numbers of multiply-accumulates for one block; the largest is a quarter above the smallest.
#
# One would guess: the MACs of a small network of convolutions are a fact, and programs differ at most by counting a
# multiply-accumulate as one or as two operations.
# What happens: for an inverted residual block with squeeze-and-excite, programs in common use also count batch norm (once
# or twice per value, although it is folded away in inference), activations, pools or additions, each another selection,
# and one program gives two numbers by its two back ends. "Fewer MACs than that paper's" may be another counter.
# Seen with torch 2.14.1 for 16 -> 64 -> 16 channels, 3x3 depthwise, 56 x 56 pixels. The convolutions have 8,230,912.
#   fvcore 0.1.5.post20221221             9,334,784
#   thop 0.1.1.post2209072238            10,238,016
#   ptflops 0.7.5, its default            9,936,992
#   ptflops 0.7.5, backend="aten"         8,230,992
#   torchprofile 0.1.0                    8,883,264
#   torchinfo 1.8.0                       8,231,280
#   torch's FlopCounterMode, halved       8,230,912
set -euo pipefail
awk '/^set /{exit} NR>1' "$0" | sed 's/^# \{0,1\}//'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq torch==2.14.1 torchvision==0.29.1 fvcore==0.1.5.post20221221 \
    thop==0.1.1.post2209072238 ptflops==0.7.5 torchprofile==0.1.0 torchinfo==1.8.0
"$folder/venv/bin/python" - <<'PYTHON'
import copy
import logging
import sys
import warnings

import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from thop import profile
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary
from torchprofile import profile_macs

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
CHANNELS, MID, SQUEEZED, SIZE = 16, 64, 16, 56


def conv_bn(inputs, outputs, kernel_size, groups=1):
    convolution = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        reduce, expand = nn.Conv2d(MID, SQUEEZED, 1), nn.Conv2d(SQUEEZED, MID, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), reduce, nn.SiLU(), expand, nn.Sigmoid())

    def forward(self, features):
        return features * self.gate(features)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        expand, depthwise = conv_bn(CHANNELS, MID, 1), conv_bn(MID, MID, 3, MID)
        self.body = nn.Sequential(
            *expand, nn.SiLU(), *depthwise, nn.SiLU(), Gated(), *conv_bn(MID, CHANNELS, 1)
        )  # fmt: skip

    def forward(self, features):
        return features + self.body(features)


block, images = Block().eval(), torch.randn(1, CHANNELS, SIZE, SIZE)
by_hand = SIZE * SIZE * (CHANNELS * MID + 9 * MID + MID * CHANNELS) + 2 * MID * SQUEEZED


def of_ptflops(backend):
    shape = (CHANNELS, SIZE, SIZE)
    settings = {"as_strings": False, "print_per_layer_stat": False, "backend": backend}
    return get_model_complexity_info(copy.deepcopy(block), shape, **settings)[0]


with FlopCounterMode(display=False) as counter:
    block(images)
found = {
    "fvcore": FlopCountAnalysis(block, images).total(),
    "thop": profile(copy.deepcopy(block), (images,), verbose=False)[0],
    "ptflops, its default": of_ptflops("pytorch"),
    "ptflops, aten": of_ptflops("aten"),
    "torchprofile": profile_macs(copy.deepcopy(block), images),
    "torchinfo": summary(copy.deepcopy(block), input_data=images, verbose=0).total_mult_adds,
    "torch, halved": counter.get_total_flops() / 2,
}
print(f"{'by hand, convolutions':24}{by_hand:>12,}")
for name, macs in found.items():
    print(f"{name:24}{int(macs):>12,}")
expected = [9334784, 10238016, 9936992, 8230992, 8883264, 8231280, 8230912]
if by_hand != 8230912 or [int(macs) for macs in found.values()] != expected:
    sys.exit(f"CHANGED: {expected} were seen")
print("as stated")
PYTHON
