"""From visits to milliseconds that can be compared and added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.latency.measuring.bench import Visit
from tfnas.latency.measuring.measure import Timing


def reference_timing(visits: Sequence[Visit]) -> Timing:
    """Of the reference, over all visits of all workloads."""
    return Timing.of([milliseconds for visit in visits for milliseconds in visit.reference_ms])


def fair_timing(visits: Sequence[Visit], reference_ms: float) -> Timing:
    """Of one workload: every call is divided by the median of the reference beside it, and multiplied by its usual one.

    `reference_ms` is the median of `reference_timing` over everything measured together.
    """
    beside = np.median([visit.reference_ms for visit in visits], axis=1, keepdims=True)
    ratios = np.array([visit.own_ms for visit in visits]) / beside
    return Timing.of(ratios.ravel() * reference_ms)
