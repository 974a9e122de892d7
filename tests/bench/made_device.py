"""A device of known truth: milliseconds from a formula of the block, seeded noise, and no clock."""

from __future__ import annotations

import random
import zlib

from tfnas.bench.timing import TimingSample
from tfnas.latency.table_contents import Conditions

REFERENCE_MS = 0.7


class MadeDevice:
    """Blocks take `truth(key, width)` ms, everything else a number that its name gives.

    Noise is relative, and drawn from the case's name and how often it was visited, so that it does not depend on
    when it is visited. `slow(count)` says how many times slower the whole device is at visit number `count`.
    `stop_after` visits it raises KeyboardInterrupt.
    """

    def __init__(self, truth, noise=0.0, slow=lambda count: 1.0, stop_after=None):
        self.truth, self.noise, self.slow, self.stop_after = truth, noise, slow, stop_after
        self.conditions = Conditions(batch_size=4)
        self.device_name, self.versions = "Made-up Processor", {"torch": "2.11.0"}
        self.instruction_sets = ("avx2", "avx512_vnni")
        self.count, self.visited = 0, {}

    def true_ms(self, name):
        if name.startswith("MBInvertedResBlock"):
            key, width = name.rsplit("_m", 1)
            return self.truth(key, int(width))
        return 0.1 + (zlib.crc32(name.encode()) % 1000) / 1000

    def measure(self, cases, order, calls):
        for index in order:
            if self.count == self.stop_after:
                raise KeyboardInterrupt
            self.count += 1
            name = cases[index].name
            number = self.visited[name] = self.visited.get(name, 0) + 1
            draws = random.Random(f"{name} {number}")
            pace = self.slow(self.count)
            yield TimingSample(
                tuple(pace * self.true_ms(name) * (1 + draws.gauss(0, self.noise)) for _ in range(calls)),
                tuple(pace * REFERENCE_MS * (1 + draws.gauss(0, self.noise)) for _ in range(calls)),
            )


def smooth(key, width):
    """Mildly curved, and another for every key."""
    share = (zlib.crc32(key.encode()) % 100) / 100
    return 0.4 + share + 0.01 * width + 2e-5 * (1 + share) * width**2
