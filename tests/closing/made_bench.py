"""A bench of known truth: milliseconds from a formula of the network, seeded noise, drift, and no clock."""

from __future__ import annotations

import math

import numpy as np

from tfnas.architecture import Architecture
from tfnas.latency.measuring.bench import Visit
from tfnas.latency.measuring.conditions import Conditions


class MadeBench:
    """Times whole networks at `truth(architecture)`, times exp of noise that forgets within `memory` calls."""

    def __init__(self, truth, *, noise=0.0, memory=20, jitter=0.0, wave=0.0, seed=0):
        self.conditions = Conditions(runtime="made", batch_size=4)
        self.device_name, self.versions = "Made-up Processor", {"made": "1.0"}
        self.truth, self.noise, self.jitter, self.wave = truth, noise, jitter, wave
        self.keep = math.exp(-1 / memory)
        self.random, self.level, self.count = np.random.default_rng(seed), 0.0, 0
        self.visited, self.seconds = [], 0.0

    def call_ms(self, ms):
        fresh = self.noise * math.sqrt(1 - self.keep**2)
        self.level = self.keep * self.level + fresh * self.random.standard_normal()
        self.count += 1
        wave = self.wave * math.sin(self.count / 700)
        called_ms = ms * math.exp(self.level + wave + self.jitter * self.random.standard_normal())
        self.seconds += called_ms / 1e3
        return called_ms

    def clock(self):
        return self.seconds

    def visits(self, workloads, order, calls):
        for index in order:
            name = workloads[index].name
            self.visited.append(name)
            ms = self.truth(Architecture.parse(name))
            pairs = [(self.call_ms(0.1), self.call_ms(ms)) for _ in range(calls)]
            yield Visit(tuple(own for _, own in pairs), tuple(beside for beside, _ in pairs))
