"""What a check of a table finds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfnas.bench.correction import Fit, FloatArray, sum_errors
from tfnas.latency.table_contents import Correction, SumErrors

FITTED, HELD_OUT = "fitted", "held_out"


@dataclass(frozen=True, kw_only=True)
class CheckedNetwork:
    """A whole network: what the table says, and what it measures."""

    part: str
    """`fitted`, what a correction is fitted to, or `held_out`, what it is judged by."""
    blocks: int
    sum_ms: float
    """The plain sum of the table's parts."""
    predicted_ms: float
    """As the table says, with the correction that it had."""
    corrected_ms: float | None
    """With the correction fitted now, if there is one."""
    measured_ms: float
    """Median of its calls, at the level asked for."""
    spread_ms: float
    """Interquartile spread of the calls."""
    plain_ms: float
    """Median of the calls as they were: not evened out by the reference beside them, and of now."""
    runs: int
    architecture: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """How fast the device is now, against when the table was measured."""

    blocks: int
    """So many blocks of the table were timed again, alone."""
    ratio: float
    """Median of what they take now over what the table says."""
    reference_ms: float
    """The reference beside them, now."""
    reference_before_ms: float | None
    """And when the table was built, where it says so."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Networks of a table's space, predicted and measured; the correction, and what became of it."""

    lookup_path: str
    table: str
    """Its description."""
    fingerprint: str
    space: str
    image_size: int
    num_classes: int
    device: str
    versions: dict[str, str]
    date: str
    seed: int
    rounds: int
    calls: int
    seconds: float
    evened: bool
    """Whether calls were evened out by the reference beside them, which is done where it makes them more alike."""
    cpu_share: float | None
    """Processor time of all threads over time passed, where that is known: at most 1 for each thread."""
    lost_core_per_s: float | None
    """How often they have lost a core to other programs in a second of processor time, where that is known."""
    disturbance: str | None
    """What makes the timings unfit to correct a table by, in words."""
    at_level: str
    level: Level
    networks: tuple[CheckedNetwork, ...]
    present: Correction | None
    """The correction that the table had."""
    fit: Fit | None
    """The one fitted now, if any form was clearly better than the plain sum."""
    verdict: str
    """What became of it, in words."""
    table_written: str | None
    """The table's file, where it was changed or made."""
    plot_file: str
    numbers_file: str

    def errors(self, which: str, part: str | None = None) -> SumErrors:
        """Of `sum_ms`, `predicted_ms` or `corrected_ms`, over one part of the networks or all."""
        chosen = [network for network in self.networks if part in (None, network.part)]
        return sum_errors(_column(chosen, which), _column(chosen, "measured_ms"))

    @property
    def held_out(self) -> int:
        """How many networks a correction is judged by."""
        return sum(network.part == HELD_OUT for network in self.networks)

    @property
    def spread_percent(self) -> float:
        """Interquartile spread of a network's calls, in percent; the median over the networks."""
        return 100 * float(np.median([network.spread_ms / network.measured_ms for network in self.networks]))

    def to_json(self) -> dict[str, Any]:
        """Everything, with the errors that follow from it."""
        names = ("sum_ms", "predicted_ms", *(("corrected_ms",) if self.fit else ()))
        parts = {"all": None, **{part: part for part in sorted({network.part for network in self.networks})}}
        errors = {
            name: {words: dataclasses.asdict(self.errors(name, part)) for words, part in parts.items()}
            for name in names
        }
        document = dataclasses.asdict(self)
        networks = document.pop("networks")
        return {"format": "tfnas-latency-check", "version": 1, **document, "errors": errors, "networks": networks}


def _column(networks: list[CheckedNetwork], name: str) -> FloatArray:
    return np.array([getattr(network, name) for network in networks], dtype=np.float64)
