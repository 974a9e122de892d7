"""A device that times structures by a formula, walked through the module: nothing of what a table's model counts by."""

from __future__ import annotations

import random

import torch
from torch import nn

from tfnas.bench.timing import TimingSample
from tfnas.latency.table_contents import Conditions

REFERENCE_MS = 0.5


def true_ms(case):
    """Milliseconds of every convolution and linear layer: few channels and large kernels compute slowly."""
    total = 0.0

    def add(layer, _, output):
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            inputs, outputs, kernel = layer.in_channels, layer.out_channels, layer.kernel_size[0]
            macs = inputs * outputs * kernel**2 * output.shape[-1] ** 2 // layer.groups
            speed = 2e7 * outputs / (outputs + 24) * inputs / (inputs + 8) / (1 + 0.1 * kernel)
            total += 0.02 + macs / speed + 1e-6 * output.numel()
        else:
            total += 0.01 + layer.in_features * layer.out_features / 2e6

    with torch.device("meta"):  # shapes alone: nothing is drawn or computed
        module = case.make().eval()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(add)
        module(torch.empty(1, case.channels, case.size, case.size))
    return total


class MadeStructureDevice:
    """Cases take `true_ms` times relative noise, drawn from the case's name and how often it was visited.

    `stop_after` visits it raises KeyboardInterrupt; whole networks take `overhead` times as long as their parts.
    """

    def __init__(self, noise=0.0, stop_after=None, overhead=1.0):
        self.noise, self.stop_after, self.overhead = noise, stop_after, overhead
        self.conditions = Conditions()
        self.device_name, self.versions = "Made-up Processor", {"torch": "2.11.0"}
        self.instruction_sets = ("avx2",)
        self.count, self.visited = 0, {}
        self.names = []

    def measure(self, cases, order, calls):
        for index in order:
            if self.count == self.stop_after:
                raise KeyboardInterrupt
            self.count += 1
            case = cases[index]
            self.names.append(case.name)
            number = self.visited[case.name] = self.visited.get(case.name, 0) + 1
            draws = random.Random(f"{case.name} {number}")
            own_ms = case_ms(case) * (self.overhead if case.name.startswith("i3x") else 1.0)
            yield TimingSample(
                tuple(own_ms * (1 + draws.gauss(0, self.noise)) for _ in range(calls)),
                tuple(REFERENCE_MS * (1 + draws.gauss(0, self.noise)) for _ in range(calls)),
            )


_KNOWN = {}


def case_ms(case):
    """The truth of a case, computed once."""
    if case.name not in _KNOWN:
        _KNOWN[case.name] = true_ms(case)
    return _KNOWN[case.name]
