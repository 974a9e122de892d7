"""The latencies that count as meeting a target, and the check that an architecture does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfnas.architecture import Architecture
from tfnas.latency.table import LatencyTable

FLOOR = 0.995
"""The lowest latency that meets a target, relative to the target; the highest is the target itself."""


class Band(NamedTuple):
    """Latencies from `low_ms` to `high_ms`, both ends included."""

    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, target_ms: float) -> Band:
        """The band of a target."""
        return cls(FLOOR * target_ms, target_ms)

    @property
    def width_ms(self) -> float:
        """The difference of its ends."""
        return self.high_ms - self.low_ms

    def less(self, ms: float) -> Band:
        """The band that is left when a part of the latency is spoken for."""
        return Band(self.low_ms - ms, self.high_ms - ms)

    def holds(self, ms: float) -> bool:
        """Whether a latency meets the target."""
        return self.low_ms <= ms <= self.high_ms

    def where(self, ms: NDArray[np.float64], slack_ms: float = 0.0) -> NDArray[np.int64]:
        """The indices of the latencies [n] that are in the band or at most `slack_ms` outside."""
        return np.flatnonzero((ms >= self.low_ms - slack_ms) & (ms <= self.high_ms + slack_ms))

    def first(self, candidates: Iterable[Architecture], table: LatencyTable) -> Architecture | None:
        """The first architecture whose table latency, as the table adds it up, is in the band."""
        return next((found for found in candidates if self.holds(table.architecture_ms(found))), None)
