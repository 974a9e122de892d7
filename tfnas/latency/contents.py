"""What a latency table holds, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

LARGEST_WIDTH = 65536
"""Widths above it are taken for a broken file: every width up to the largest costs memory."""


@dataclass(frozen=True)
class Curve:
    """Milliseconds of a block at the widths measured (ascending), with the interquartile spread of each point."""

    widths: tuple[int, ...]
    ms: tuple[float, ...]
    spread_ms: tuple[float, ...]

    @cached_property
    def dense_ms(self) -> NDArray[np.float64]:
        """Milliseconds at every width from the first to the last measured, float64, read-only.

        Measured points stand as they are. Between them runs scipy's monotone cubic interpolation (PCHIP), which never
        leaves the interval of the two points around it: no overshoot, nothing zero or negative that was not measured.
        """
        first, last = self.widths[0], self.widths[-1]
        measured = np.asarray(self.ms, dtype=np.float64)
        if len(self.widths) == last - first + 1:
            values = measured
        else:
            between = PchipInterpolator(np.asarray(self.widths, dtype=np.float64), measured)
            values = np.asarray(between(np.arange(first, last + 1)), dtype=np.float64)
            values[np.asarray(self.widths) - first] = measured
        values.flags.writeable = False
        return values


@dataclass(frozen=True)
class BasePart:
    """A part that every network of the space has: what it is, its milliseconds and their interquartile spread."""

    key: str
    ms: float
    spread_ms: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Where and how a table was measured."""

    space: str
    space_fingerprint: str
    image_size: int
    device: str
    """Name of the processor or GPU."""
    device_kind: str
    """`cpu` or `cuda`."""
    runtime: str
    batch_size: int
    threads: int
    dtype: str
    memory_format: str
    versions: Mapping[str, str]
    date: str
    """Day of the measurement, YYYY-MM-DD."""
    procedure: str
    """How it was measured, in words, with the drift of the reference load."""

    @property
    def description(self) -> str:
        """One line for people."""
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        version = self.versions.get(self.runtime, "")
        runtime = f"{self.runtime} {version}".strip()
        return f"{self.device}, {runtime}, batch {self.batch_size}, {threads}, {self.dtype}, {self.date}"


@dataclass(frozen=True)
class TableContents:
    """Base parts by name, curves by block key, and the measurement, which the authors' files do not carry."""

    base: Mapping[str, BasePart]
    curves: Mapping[str, Curve]
    measurement: Measurement | None
