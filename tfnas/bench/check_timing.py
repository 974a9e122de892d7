"""Timing whole networks in interleaved rounds, with some blocks of the table."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from tfnas.bench.benches import Bench, LocalBench
from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.timing import Timing, TimingSample, normalised_timing, reference_timing, shuffled_rounds

FEWEST_ROUNDS = 3

_LEAST_CPU_SHARE = 0.8
_MOST_LOST_PER_S = 40.0
_LARGEST_SCATTER = 0.25


@dataclass(frozen=True)
class SampleBudget:
    """How often everything is timed: `rounds`, fewer where `seconds` would not do, with so many calls each."""

    rounds: int
    calls: int
    seconds: float
    seed: int


@dataclass(frozen=True, eq=False)
class RoundsTimed:
    """Networks and blocks in the order given; each network as its calls were, and evened out by the reference."""

    plain: list[Timing]
    evened: list[Timing]
    blocks: list[Timing]
    block_reference: Timing
    """The reference next to the blocks, as it was next to those of the table when that was built."""
    rounds: int
    seconds: float
    cpu_share: float | None
    """Processor time of all threads over time passed, after the first round; None where it says nothing: on a GPU."""
    lost_core_per_s: float | None
    """How often a thread has lost its core to another program, in a second of processor time; None likewise."""
    threads: int = 1

    @property
    def disturbance(self) -> str | None:
        """What makes these timings unfit to correct a table by, in words.

        If programs compete for the cores, a long call is cut into pieces and a short one seldom is: whole networks
        then seem slower than the sum of their blocks. How often that happens in a second of computing does not depend
        on the number of threads. The share of the core tells what a single thread may have: several wait for each other
        on a quiet machine too.
        """
        if self.threads == 1 and self.cpu_share is not None and self.cpu_share < _LEAST_CPU_SHARE:
            return f"this process got only {self.cpu_share:.0%} of its core"
        if self.lost_core_per_s is not None and self.lost_core_per_s > _MOST_LOST_PER_S:
            lost = f"{self.lost_core_per_s:.0f} times in a second of computing"
            return f"this process was preempted by other programs, {lost}"
        if _scatter(self.networks) > _LARGEST_SCATTER:
            return f"calls of the same network vary by {_scatter(self.networks):.0%}"
        return None

    @property
    def is_evened(self) -> bool:
        """Whether normalising to the adjacent reference reduces the scatter of calls."""
        return _scatter(self.evened) < _scatter(self.plain)

    @property
    def networks(self) -> list[Timing]:
        """The timings that count: of both kinds, those that scatter less."""
        return self.evened if self.is_evened else self.plain


class _Timings(TypedDict):
    plain: list[Timing]
    evened: list[Timing]
    blocks: list[Timing]
    block_reference: Timing


def _scatter(timings: Sequence[Timing]) -> float:
    return float(np.median([timing.spread_ms / timing.median_ms for timing in timings]))


def time_in_rounds(
    bench: Bench,
    networks: Sequence[BenchmarkCase],
    blocks: Sequence[BenchmarkCase],
    budget: SampleBudget,
    on_measurement: Callable[[int, int], None],
) -> RoundsTimed:
    """Measure everything once a round, in a new order each; blocks follow one another, so that none follows a network.

    `on_measurement` is called with the number of samples made, and of all that there will be as far as is known.
    """
    cases = [*networks, *blocks]
    groups = [range(len(networks)), range(len(networks), len(cases))]
    order = shuffled_rounds(groups, budget.rounds, random.Random(f"order {budget.seed}"))
    samples: list[TimingSample] = []
    started = round_started = time.monotonic()
    clocks = [_Clocks.at(started)]
    source = bench.measure(cases, order, budget.calls)
    planned = budget.rounds
    for sample in source:
        samples.append(sample)
        rounds, rest = divmod(len(samples), len(cases))
        if rest == 0:
            now = time.monotonic()
            round_s, round_started = now - round_started, now
            clocks.append(_Clocks.at(now))
            left = int(max(0.0, started + budget.seconds - now) / max(round_s, 1e-9))
            planned = min(budget.rounds, max(FEWEST_ROUNDS, rounds + left))
        on_measurement(len(samples), planned * len(cases))
        if rest == 0 and rounds >= planned:
            break
    if isinstance(source, Generator):
        source.close()
    by_index: list[list[TimingSample]] = [[] for _ in cases]
    for index, sample in zip(order, samples, strict=False):
        by_index[index].append(sample)
    on_cpu = isinstance(bench, LocalBench) and bench.conditions.device_kind == "cpu"
    first, last = clocks[1 if len(clocks) > 2 else 0], clocks[-1]
    return RoundsTimed(
        **_timings(by_index[: len(networks)], by_index[len(networks) :]),
        rounds=len(samples) // len(cases),
        seconds=last.passed_s - started,
        cpu_share=(last.computed_s - first.computed_s) / (last.passed_s - first.passed_s) if on_cpu else None,
        lost_core_per_s=(last.lost - first.lost) / (last.computed_s - first.computed_s) if on_cpu else None,
        threads=bench.conditions.threads,
    )


@dataclass(frozen=True)
class _Clocks:
    """At some moment: the time, processor time of this process, and how often its threads have lost a core."""

    passed_s: float
    computed_s: float
    lost: int

    @classmethod
    def at(cls, passed_s: float) -> _Clocks:
        """At this moment, which is called `passed_s`."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return cls(passed_s, usage.ru_utime + usage.ru_stime, usage.ru_nivcsw)


def _timings(networks: Sequence[Sequence[TimingSample]], blocks: Sequence[Sequence[TimingSample]]) -> _Timings:
    next_to_networks = reference_timing([sample for row in networks for sample in row])
    next_to_blocks = reference_timing([sample for row in blocks for sample in row])
    return _Timings(
        plain=[Timing.of([ms for sample in row for ms in sample.own_ms]) for row in networks],
        evened=[normalised_timing(row, next_to_networks.median_ms) for row in networks],
        blocks=[normalised_timing(row, next_to_blocks.median_ms) for row in blocks],
        block_reference=next_to_blocks,
    )


def ratio_now(blocks: Sequence[Timing], table_ms: Sequence[float]) -> float:
    """What the blocks take now over what the table says, the median."""
    return float(np.median([now.median_ms / before for now, before in zip(blocks, table_ms, strict=True)]))
