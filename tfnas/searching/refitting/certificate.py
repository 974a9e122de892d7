"""Statistics of timed calls: the median latency with a confidence interval, and the verdict on a target.

Machines go through slower and faster phases, so consecutive calls are correlated, and a thousand of them carry far less
information than a thousand independent ones. The calls are therefore cut into segments of time; a segment is an
observation, and the number of segments is reduced by the correlation of neighbouring ones.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tfnas.latency.table_contents import Conditions
from tfnas.utils.text import percent

Verdict: TypeAlias = Literal["inside", "outside", "undecided"]
"""Position of a latency: its whole interval within epsilon of the target, none of it, or some of it."""

LEVEL = 0.95
SEGMENTS = 16
FEWEST_CALLS = 2 * SEGMENTS
_LARGEST_CORRELATION = 0.9
_FEWEST_INDEPENDENT = 2.0
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Latency in milliseconds per call, from `runs` consecutive calls over `seconds`.

    `interval_ms` is the confidence interval of the long-run median at `level`, estimated from `segments` segments.
    `fastest_segment` and `slowest_segment` are medians of segments as multiples of `median_ms`: how steady the machine
    was.
    """

    mean_ms: float
    median_ms: float
    p95_ms: float
    interval_ms: tuple[float, float]
    level: float
    runs: int
    segments: int
    seconds: float
    fastest_segment: float
    slowest_segment: float

    @classmethod
    def of(cls, milliseconds: Sequence[float], seconds: float, level: float = LEVEL) -> Certificate:
        """The certificate of at least `FEWEST_CALLS` calls, in the order in which they were made, over `seconds`.

        The interval is the intersection of two, both from Student's t over the segments, whose number is reduced by
        the correlation of neighbours (an autoregressive series). One is of the segments' medians; phases of very slow
        calls make it far too wide. The other is Woodruff's for a median (Journal of the American Statistical
        Association 47, 1952): the segments' fractions of calls below the median give the quantiles of all calls between
        which it lies; that fails if the machine drifts. The interval is at least as wide as for independent calls.
        """
        calls = np.asarray(milliseconds, dtype=np.float64)
        assert len(calls) >= FEWEST_CALLS, len(calls)
        medians = np.array([np.median(part) for part in np.array_split(calls, SEGMENTS)])
        median_ms = float(np.median(calls))
        below = (calls < median_ms) + (calls == median_ms) / 2
        half = _half_width(np.array([np.mean(part) for part in np.array_split(below, SEGMENTS)]), level)
        low_ms, high_ms = _quantiles(calls, half)
        half_ms = _half_width(medians, level)
        least_low_ms, least_high_ms = _quantiles(
            calls, float(stats.norm.ppf((1 + level) / 2)) / (2 * math.sqrt(len(calls)))
        )
        return cls(
            mean_ms=float(calls.mean()),
            median_ms=median_ms,
            p95_ms=float(np.percentile(calls, 95)),
            interval_ms=(
                min(max(low_ms, median_ms - half_ms), least_low_ms),
                max(min(high_ms, median_ms + half_ms), least_high_ms),
            ),
            level=level,
            runs=len(calls),
            segments=SEGMENTS,
            seconds=seconds,
            fastest_segment=float(medians.min()) / median_ms,
            slowest_segment=float(medians.max()) / median_ms,
        )

    @property
    def half_width(self) -> float:
        """Half the interval's width, relative to the median."""
        low, high = self.interval_ms
        return (high - low) / (2 * self.median_ms)

    def verdict(self, target_ms: float, epsilon: float) -> Verdict:
        """Whether the latency is within a fraction `epsilon` of a target."""
        low, high = self.interval_ms
        if abs(low - target_ms) <= epsilon * target_ms and abs(high - target_ms) <= epsilon * target_ms:
            return "inside"
        return "outside" if self.nearest_error(target_ms) > epsilon else "undecided"

    def nearest_error(self, target_ms: float) -> float:
        """Relative distance of the interval from the target, 0 if it contains the target.

        The smallest epsilon that the interval does not contradict.
        """
        low, high = self.interval_ms
        return max(low - target_ms, target_ms - high, 0.0) / target_ms

    def supported_epsilon(self, target_ms: float) -> float:
        """The smallest epsilon within which the whole interval lies."""
        return max(abs(end - target_ms) for end in self.interval_ms) / target_ms

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**dataclasses.asdict(self), "interval_ms": list(self.interval_ms)}


@dataclass(frozen=True, kw_only=True)
class MeasuredUnder:
    """The conditions of a certificate. `load`: the host's load averages before and after, None if unknown."""

    device: str
    device_kind: str
    worker: bool
    runtime: str
    batch_size: int
    threads: int
    dtype: str
    versions: Mapping[str, str]
    instruction_sets: tuple[str, ...]
    load: tuple[float, float] | None
    date: str

    @classmethod
    def of(
        cls,
        conditions: Conditions,
        device_name: str,
        versions: Mapping[str, str],
        *,
        instruction_sets: tuple[str, ...] = (),
        worker: bool = False,
        load: tuple[float, float] | None = None,
    ) -> MeasuredUnder:
        """The conditions of a measurement made today."""
        return cls(
            device=device_name,
            device_kind=conditions.device_kind,
            worker=worker,
            runtime=conditions.runtime,
            batch_size=conditions.batch_size,
            threads=conditions.threads,
            dtype=conditions.dtype,
            versions=dict(versions),
            instruction_sets=instruction_sets,
            load=load,
            date=datetime.date.today().isoformat(),
        )

    @property
    def description(self) -> str:
        """One line for people."""
        version = self.versions.get(self.runtime, self.versions.get(self.runtime.partition("-")[0], ""))
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        runtime = f"{self.runtime} {version}".strip()
        load = "" if self.load is None else f", load {self.load[0]:.1f} to {self.load[1]:.1f}"
        return f"{self.device}, {runtime}, batch {self.batch_size}, {threads}, {self.dtype}, {self.date}{load}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        document = dataclasses.asdict(self)
        for name in ("instruction_sets", "load"):
            document[name] = None if document[name] is None else list(document[name])
        return document


def certificate_lines(found: Certificate) -> tuple[str, ...]:
    """Lines of text: the latency with its interval, and the number of calls."""
    low, high = found.interval_ms
    return (
        f"{found.median_ms:.4g} ms median, {found.mean_ms:.4g} ms mean, {found.p95_ms:.4g} ms at p95",
        f"{low:.5g} to {high:.5g} ms: {100 * found.level:.0f} % confidence interval of the median "
        f"(+- {100 * found.half_width:.2f} %): {found.runs} runs in {found.seconds:.0f} s, {found.segments} segments "
        f"{100 * (found.fastest_segment - 1):+.1f} to {100 * (found.slowest_segment - 1):+.1f} %",
    )


def verdict_text(found: Certificate, target_ms: float, epsilon: float) -> str:
    """Text: whether the latency is within epsilon of the target, or which epsilon the calls support."""
    error = percent(100 * (found.median_ms / target_ms - 1))
    wanted = f"{100 * epsilon:g} % of {target_ms:g} ms"
    match found.verdict(target_ms, epsilon):
        case "inside":
            return f"within {wanted}: the median is off by {error}, and the whole interval is inside"
        case "outside":
            return f"not within {wanted}: the median is off by {error}, and the whole interval is outside"
        case "undecided":
            why = "the noise is larger" if found.half_width > epsilon else "the interval straddles the tolerance"
            supported = math.ceil(1000 * found.supported_epsilon(target_ms) - _ROUNDING) / 10
            low, high = (percent(100 * (end / target_ms - 1)) for end in found.interval_ms)
            return (
                f"undecided whether within {wanted}: {why}. The median is off by {error}, the ends of its interval "
                f"by {low} and {high}, which supports an epsilon of {supported:g} %"
            )


def _quantiles(calls: NDArray[np.float64], half: float) -> tuple[float, float]:
    """The quantiles `half` below and above the median."""
    low, high = np.quantile(calls, [max(0.5 - half, 0.0), min(0.5 + half, 1.0)])
    return float(low), float(high)


def _half_width(values: NDArray[np.float64], level: float) -> float:
    """Half the width of Student's interval of the mean of a series with correlated neighbours."""
    deviations = values - values.mean()
    total = float(deviations @ deviations)
    if total == 0:
        return 0.0
    number = len(values)
    correlation = float(deviations[1:] @ deviations[:-1]) / total + 1 / number  # a short series underestimates it
    correlation = min(max(correlation, 0.0), _LARGEST_CORRELATION)
    independent = max(number * (1 - correlation) / (1 + correlation), _FEWEST_INDEPENDENT)
    deviation = math.sqrt(total / (number - 1))
    return float(stats.t.ppf((1 + level) / 2, independent - 1)) * deviation / math.sqrt(independent)
