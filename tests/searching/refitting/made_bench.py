"""A bench of known truth: milliseconds from a formula of the network, seeded noise, drift, and no clock."""

from __future__ import annotations

import math

import numpy as np

from tfnas.bench.timing import TimingSample
from tfnas.core.architecture import Architecture
from tfnas.latency.table_contents import Conditions


class MadeBench:
    """Times whole networks at `truth(architecture)`, times exp of noise that forgets within `memory` calls."""

    def __init__(self, truth, *, noise=0.0, memory=20, jitter=0.0, wave=0.0, seed=0):
        self.conditions = Conditions(runtime="made", batch_size=4)
        self.device_name, self.versions = "Made-up Processor", {"made": "1.0"}
        self.instruction_sets = ("avx2",)
        self.truth, self.noise, self.jitter, self.wave = truth, noise, jitter, wave
        self.keep = math.exp(-1 / memory)
        self.random, self.level, self.count = np.random.default_rng(seed), 0.0, 0
        self.visited, self.seconds = [], 0.0

    def calls_ms(self, true_ms):
        """Calls one after the other, of networks that truly take so long."""
        fresh, jitter = self.random.standard_normal((len(true_ms), 2)).T
        levels = []
        for step in (self.noise * math.sqrt(1 - self.keep**2) * fresh).tolist():
            self.level = self.keep * self.level + step
            levels.append(self.level)
        wave = self.wave * np.sin((self.count + 1 + np.arange(len(true_ms))) / 700)
        called_ms = true_ms * np.exp(levels + wave + self.jitter * jitter)
        self.count += len(true_ms)
        self.seconds += called_ms.sum() / 1e3
        return called_ms.tolist()

    def clock(self):
        return self.seconds

    def measure(self, cases, order, calls):
        true_ms = [self.truth(Architecture.parse(case.name)) for case in cases]
        for index in order:
            self.visited.append(cases[index].name)
            called_ms = self.calls_ms(np.tile([0.1, true_ms[index]], calls))
            yield TimingSample(tuple(called_ms[1::2]), tuple(called_ms[::2]))


class SlowNoise:
    """A bench of `truth(architecture)` ms per call, 10 by default, with noise that forgets within `memory_s` seconds.

    The noise of `deviation` is that of an Ornstein-Uhlenbeck process by the bench's own clock, alike within a visit,
    and 1 % from call to call. From `louder_from_s` on all of it is four times as much.
    """

    def __init__(self, memory_s, deviation, seed, louder_from_s=math.inf, truth=lambda _: 10.0):
        self.conditions = Conditions(runtime="made", batch_size=4)
        self.device_name, self.versions = "Made-up Processor", {"made": "1.0"}
        self.instruction_sets = ("avx2",)
        self.memory_s, self.deviation, self.louder_from_s = memory_s, deviation, louder_from_s
        self.truth, self.random, self.seconds = truth, np.random.default_rng(seed), 0.0
        self.level, self.visit_seconds = self.random.standard_normal(), []

    def clock(self):
        return self.seconds

    def measure(self, cases, order, calls):
        true_ms = [self.truth(Architecture.parse(case.name)) for case in cases]
        for index in order:
            keep = math.exp(-2 * calls * true_ms[index] / 1e3 / self.memory_s)
            self.level = keep * self.level + math.sqrt(1 - keep**2) * self.random.standard_normal()
            noise = self.deviation * self.level + 0.01 * self.random.standard_normal(calls)
            own_ms = true_ms[index] * np.exp((4 if self.seconds > self.louder_from_s else 1) * noise)
            self.visit_seconds.append(2 * own_ms.sum() / 1e3)  # each call has one of the reference beside it
            self.seconds += self.visit_seconds[-1]
            yield TimingSample(tuple(own_ms.tolist()), ())
