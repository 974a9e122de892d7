"""Benches of known truth: what they say follows from a formula and seeded noise."""

from __future__ import annotations

import random

from tfnas.bench.timing import TimingSample
from tfnas.core.architecture import Architecture
from tfnas.latency.table_contents import Conditions


class MadeBench:
    """Networks take `truth(plain sum, blocks)` ms, blocks what the plain table says; everything times pace and noise.

    `slow` is a set of numbers of networks, in order of first visit, that take `slowness` times as long.
    """

    def __init__(self, plain, truth, noise=0.0, pace=1.0, slow=(), slowness=1.5, device="Made-up Processor", seed=0):
        self.plain, self.truth, self.noise, self.pace = plain, truth, noise, pace
        self.slow, self.slowness, self.device_name = slow, slowness, device
        self.conditions, self.versions = Conditions(batch_size=32), {"torch": "2.11.0"}
        self.rng = random.Random(seed)
        self.visited = []

    def _own_ms(self, name, number):
        if name.startswith("MBInvertedResBlock"):
            key, width = name.rsplit("_m", 1)
            curve = self.plain.contents.curves[key]
            return float(curve.dense_ms()[int(width) - curve.widths[0]])
        architecture = Architecture.parse(name)
        own_ms = self.truth(self.plain.architecture_ms(architecture), len(architecture.blocks))
        return own_ms * (self.slowness if number in self.slow else 1.0)

    def measure(self, cases, order, calls):
        numbers = {}
        for index in order:
            number = numbers.setdefault(index, len(numbers))
            name = cases[index].name
            self.visited.append(name)
            own_ms = self.pace * self._own_ms(name, number)
            yield TimingSample(
                tuple(own_ms * (1 + self.rng.gauss(0, self.noise)) for _ in range(calls)),
                tuple(self.pace * 0.5 * (1 + self.rng.gauss(0, self.noise)) for _ in range(calls)),
            )
