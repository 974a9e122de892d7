"""The median latency with a confidence interval, the verdict on a target, and how long to time for it.

Machines go through slower and faster phases, so consecutive calls are correlated, and a thousand of them carry far less
information than a thousand independent ones. The calls are therefore cut into segments of time; a segment is an
observation, and the number of segments is reduced by the correlation of neighbouring ones.

Sampling that stops as soon as its own interval is narrow stops too early more often than too late, and the interval
then contains the truth less often than stated. So the length of a certificate is chosen from a pilot, whose calls are
not used for it; fitting stops when it is precise enough.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tfnas.bench.benches import Bench
from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.timing import TimingSample
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


_SAMPLE_MS = 250.0
_MOST_CALLS = 64
_SAMPLES_AHEAD = 1000
_GROWTH = 1.25
_CAUTION = 1.5
"""Factor on the length estimated from the pilot, which is itself uncertain."""

_LEAST_PILOTS = 3.0
"""Minimum length in pilots: noise as slow as the pilot is only visible in a longer measurement."""


@dataclass
class Budget:
    """Seconds of measuring that are left, by a clock."""

    seconds: float
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class StoppingRule:
    """When to stop sampling: after `least_seconds` as soon as `enough` is true, after `most_seconds` in any case."""

    enough: Callable[[Certificate], bool]
    least_seconds: float
    most_seconds: float


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long to measure for a certificate with a relative `half_width`.

    It is estimated from a pilot of `pilot_seconds`; at most `most_seconds` are used in all.
    """

    half_width: float
    pilot_seconds: float
    most_seconds: float

    def seconds_after(self, pilot_ms: list[float], spent: float) -> float:
        """The seconds of the certificate, from the calls of a pilot that lasted `spent` seconds."""
        left = self.most_seconds - spent
        if len(pilot_ms) < FEWEST_CALLS:
            return left
        pilot = Certificate.of(pilot_ms, spent)
        needed = _CAUTION * spent * (pilot.half_width / self.half_width) ** 2
        return min(max(needed, _LEAST_PILOTS * spent), left)


OnSpent = Callable[[float, float | None], None]
"""Is called after every sample with the seconds spent, and the total (None: not known yet)."""


def measure_fixed(
    samples: Iterator[TimingSample], length: Length, budget: Budget, on_spent: OnSpent = lambda *_: None
) -> Certificate:
    """A certificate of calls over a length that is fixed before the first of them.

    The first sample warms up, and is neither counted nor taken off the budget. At least `FEWEST_CALLS` calls are made,
    even if they take longer than the time allowed.
    """
    next(samples)
    started = budget.clock()
    pilot_ms, spent = _timed_calls(
        samples, length.pilot_seconds, 1, budget.clock, lambda so_far: on_spent(so_far, None)
    )
    chosen = length.seconds_after(pilot_ms, spent)
    own_ms, seconds = _timed_calls(
        samples, chosen, FEWEST_CALLS, budget.clock, lambda so_far: on_spent(spent + so_far, spent + chosen)
    )
    budget.seconds = max(0.0, budget.seconds - (budget.clock() - started))
    return Certificate.of(own_ms, seconds)


def _timed_calls(
    samples: Iterator[TimingSample],
    seconds: float,
    fewest: int,
    clock: Callable[[], float],
    on_spent: Callable[[float], None],
) -> tuple[list[float], float]:
    """Milliseconds of the calls made in so many seconds, at least `fewest`, and the seconds that they took.

    It ends before a sample that would exceed the time if it lasts as long as the longest so far.
    """
    own_ms: list[float] = []
    started, before, longest = clock(), 0.0, 0.0
    for timing in samples:
        own_ms += timing.own_ms
        spent = clock() - started
        longest, before = max(longest, spent - before), spent
        on_spent(spent)
        if spent + longest > seconds and len(own_ms) >= fewest:
            break
    return own_ms, before


def sample(samples: Iterator[TimingSample], until: StoppingRule, budget: Budget) -> Certificate:
    """Sample until the rule is met, for fitting only: the interval of such calls is too narrow.

    The time is taken off the budget, except that of the first sample. At least `FEWEST_CALLS` calls are made.
    """
    first = next(samples)
    own_ms, started = list(first.own_ms), budget.clock()
    next_try = float(FEWEST_CALLS)
    for timing in samples:
        own_ms += timing.own_ms
        if len(own_ms) < FEWEST_CALLS:
            continue
        spent = budget.clock() - started
        if spent >= until.most_seconds:
            break
        if len(own_ms) < next_try:
            continue
        if spent >= until.least_seconds and until.enough(Certificate.of(own_ms, spent)):
            break
        next_try = _GROWTH * len(own_ms)
    spent = budget.clock() - started
    budget.seconds = max(0.0, budget.seconds - spent)
    return Certificate.of(own_ms, spent)


def sample_case(
    bench: Bench, case: BenchmarkCase, expected_ms: float, until: StoppingRule | Length, budget: Budget
) -> Certificate:
    """`sample`, or with a `Length` `measure_fixed`, of a case on a bench, about a quarter of a second per sample."""
    with closing(_samples(bench, case, calls_per_sample(expected_ms))) as samples:
        return measure_fixed(samples, until, budget) if isinstance(until, Length) else sample(samples, until, budget)


def calls_per_sample(expected_ms: float) -> int:
    """Number of calls that take about a quarter of a second."""
    return min(max(round(_SAMPLE_MS / expected_ms), 1), _MOST_CALLS)


def _samples(bench: Bench, case: BenchmarkCase, calls: int) -> Generator[TimingSample, None, None]:
    """Endless samples; a bench that works ahead is asked for a few minutes of them at a time."""
    while True:
        yield from bench.measure([case], [0] * _SAMPLES_AHEAD, calls)
