"""Certificates: intervals that hold the truth as often as they say, and verdicts that claim no more than they hold."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
from made_bench import MadeBench, SlowNoise
from scipy import stats
from tiny import tiny_space

from tfnas.bench.benchmark_cases import network_case, random_architectures
from tfnas.latency.table_contents import Conditions
from tfnas.searching.refitting.certificate import (
    FEWEST_CALLS,
    SEGMENTS,
    Budget,
    Certificate,
    Length,
    MeasuredUnder,
    StoppingRule,
    calls_per_sample,
    certificate_lines,
    sample,
    sample_case,
    verdict_text,
)


def series(count, memory, seed, noise=0.02):
    """Calls around 10 ms whose noise forgets within `memory` calls, with slow calls among them; their median is 10."""
    random = np.random.default_rng(seed)
    keep = math.exp(-1 / memory) if memory else 0.0
    level, levels = random.standard_normal(), []
    for fresh in random.standard_normal(count):
        level = keep * level + math.sqrt(1 - keep**2) * fresh
        levels.append(level)
    noises = noise * np.array(levels) + 0.01 * random.standard_normal(count)
    slow = (random.random(count) < 0.03) * random.exponential(4, count)
    return 10 * np.exp(noises) + np.where(noises > 0, slow, 0)  # those that are slow were above the median anyway


def share_held(memory, interval, seeds=300, count=480):
    return np.mean([low <= 10 <= high for low, high in (interval(series(count, memory, s)) for s in range(seeds))])


def naive_interval(calls):
    """What independent calls would allow: the mean of their logarithms and its standard error."""
    logs = np.log(np.minimum(calls, np.percentile(calls, 97)))
    half = stats.norm.ppf(0.975) * logs.std(ddof=1) / math.sqrt(len(calls))
    return math.exp(logs.mean() - half), math.exp(logs.mean() + half)


@pytest.mark.parametrize("memory", [0, 15, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 40))])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(memory):
    assert share_held(memory, lambda calls: Certificate.of(calls, 1.0).interval_ms) >= 0.9


def test_a_standard_error_of_single_calls_would_not():
    assert share_held(15, naive_interval) < 0.6


def test_the_interval_is_not_wider_than_needed_where_calls_are_independent():
    halves = [Certificate.of(series(480, 0, seed), 1.0).half_width for seed in range(50)]
    # of a median of n independent calls of deviation s: 1.25 * s / sqrt(n), and 1.96 of these
    needed = 1.96 * 1.2533 * math.hypot(0.02, 0.01) / math.sqrt(480)
    assert needed < np.mean(halves) < 1.6 * needed


def test_the_numbers_are_those_of_numpy():
    calls = np.random.default_rng(1).gamma(5, 2, 100)
    found = Certificate.of(calls.tolist(), 12.5)
    assert (found.mean_ms, found.median_ms) == pytest.approx((calls.mean(), np.median(calls)))
    assert found.p95_ms == pytest.approx(np.sort(calls)[94:96] @ [0.95, 0.05])  # at 94.05 of 0..99
    assert (found.runs, found.segments, found.seconds, found.level) == (100, SEGMENTS, 12.5, 0.95)
    assert found.interval_ms[0] <= found.median_ms <= found.interval_ms[1]
    lengths = [7] * 4 + [6] * 12
    medians = [np.median(part) for part in np.split(calls, np.cumsum(lengths)[:-1])]
    assert found.slowest_segment == pytest.approx(max(medians) / np.median(calls))
    assert found.fastest_segment == pytest.approx(min(medians) / np.median(calls))
    assert found.to_json()["interval_ms"] == list(found.interval_ms)


def students(values):
    """Mean and half width of 16 values whose neighbours are alike, sum by sum."""
    mean = sum(values) / 16
    products = [(one - mean) * (other - mean) for one, other in itertools.pairwise(values)]
    alike = sum(products) / sum((one - mean) ** 2 for one in values) + 1 / 16
    assert 0.1 < alike < 0.8
    independent = 16 * (1 - alike) / (1 + alike)
    return mean, stats.t(independent - 1).ppf(0.975) * np.std(values, ddof=1) / math.sqrt(independent)


@pytest.mark.parametrize("seed", [2, 4, 6])
def test_the_interval_is_what_students_and_woodruffs_have_in_common(seed):
    """A second implementation, call by call."""
    calls = series(16 * 30, 15, seed)
    segments = calls.reshape(16, 30)
    _, half = students([np.median(segment) for segment in segments])
    _, share = students([sum(call < np.median(calls) for call in segment) / 30 for segment in segments])
    ordered = np.sort(calls)
    quantiles = [np.interp((0.5 + side * share) * 479, range(480), ordered) for side in (-1, 1)]
    median = np.median(calls)
    expected = max(median - half, quantiles[0]), min(median + half, quantiles[1])
    least = 1.96 * 0.5 / math.sqrt(480)
    assert expected[0] < np.quantile(calls, 0.5 - least) and np.quantile(calls, 0.5 + least) < expected[1]
    assert expected[0] < np.median(calls) < expected[1]
    assert Certificate.of(calls, 1.0).interval_ms == pytest.approx(expected)


@pytest.mark.parametrize("count", [32, *(pytest.param(n, marks=pytest.mark.slow) for n in (64, 100))])
def test_few_calls_of_which_some_are_slow_hold_the_truth(count):
    """A third of all calls take 40 % more; the median is that of the others, 0.7 of the way up."""
    truth = 10 * math.exp(0.01 * stats.norm.ppf(0.5 / 0.7))
    random = np.random.default_rng(count)
    held = []
    for _ in range(300):
        calls = 10 * np.exp(0.01 * random.standard_normal(count)) * np.where(random.random(count) < 0.3, 1.4, 1.0)
        low, high = Certificate.of(calls, 1.0).interval_ms
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.92


def test_calls_that_alternate_are_not_known_without_doubt():
    assert Certificate.of([10.0, 11.0] * 16, 1.0).interval_ms == (10.0, 11.0)


def spells(seed, count=4000):
    """Calls of 10 ms with 1 % noise; in spells of about 100 calls, a seventh of all, they take 40 % more."""
    random = np.random.default_rng(seed)
    slow, calls = False, []
    for fresh, draw in zip(random.standard_normal(count), random.random(count), strict=True):
        slow = slow != (draw < (1 / 100 if slow else 1 / 600))
        calls.append(10 * math.exp(0.01 * fresh) * (1.4 if slow else 1.0))
    return np.array(calls)


def test_spells_of_a_slow_machine_do_not_drown_the_median():
    """A handful of spells is little to know their share by: the truth is held less often than it says, but mostly."""
    truth = np.median(np.concatenate([spells(1000 + seed) for seed in range(50)]))
    found = [Certificate.of(spells(seed), 1.0) for seed in range(80)]
    assert np.mean([one.interval_ms[0] <= truth <= one.interval_ms[1] for one in found]) >= 0.8
    assert np.median([one.half_width for one in found]) < 0.006
    assert np.median([one.slowest_segment for one in found]) > 1.2  # and they are told


def test_a_machine_that_becomes_slower_is_not_known_closely():
    steady, rising = 10 + 0.01 * np.random.default_rng(0).standard_normal(480), np.linspace(9.5, 10.5, 480)
    assert Certificate.of(steady, 1.0).half_width < 0.001
    assert Certificate.of(rising, 1.0).half_width == pytest.approx(0.05)  # all that was seen
    assert Certificate.of([3.0] * FEWEST_CALLS, 1.0).interval_ms == (3.0, 3.0)


def made(low, median, high):
    plain = Certificate.of([1.0] * FEWEST_CALLS, 1.0)
    return dataclasses.replace(plain, interval_ms=(low, high), median_ms=median)


@pytest.mark.parametrize(
    ("interval", "verdict", "supported", "words"),  # all shares are of the target
    [
        ((9.95, 10.0, 10.05), "inside", 0.005, "within 1 % of 10 ms: the median is off by"),
        ((9.9, 10.0, 10.1), "inside", 0.01, "within 1 %"),
        ((10.2, 10.3, 10.4), "outside", 0.04, "not within 1 % of 10 ms: the median is off by \\+3.00 %"),
        ((9.0, 9.2, 9.89), "outside", 0.1, "not within"),
        ((10.05, 10.09, 10.13), "undecided", 0.013, "straddles the tolerance"),
        ((9.7, 10.0, 10.3), "undecided", 0.03, "the noise is larger.*supports an epsilon of 3 %"),
        ((9.7, 9.7, 10.2), "undecided", 0.03, r"off by -3\.00 %, the ends of its interval by -3\.00 % and \+2\.00 %"),
    ],
)
def test_verdicts(interval, verdict, supported, words):
    found = made(*interval)
    assert found.verdict(10.0, 0.01 + 1e-12) == verdict
    assert found.supported_epsilon(10.0) == pytest.approx(supported)
    text = verdict_text(found, 10.0, 0.01 + 1e-12)
    assert re.search(words, text)


def test_an_outside_verdict_needs_the_whole_interval_on_one_side():
    assert made(10.11, 10.2, 10.3).verdict(10.0, 0.01) == "outside"
    assert made(9.5, 9.6, 9.88).verdict(10.0, 0.01) == "outside"
    assert made(9.5, 10.2, 10.9).verdict(10.0, 0.01) == "undecided"
    assert made(10.09, 10.2, 10.3).verdict(10.0, 0.01) == "undecided"
    assert made(9.5, 10.2, 10.9).nearest_error(10.0) == 0


def test_what_people_read():
    first, second = certificate_lines(Certificate.of(series(480, 0, 0), 20.0))
    assert "ms median" in first and "ms at p95" in first
    assert "95 % confidence" in second and "480 runs in 20 s, 16 segments" in second
    under = MeasuredUnder.of(Conditions(batch_size=8), "Made-up", {"torch": "2.0"}, load=(0.5, 1.25))
    assert under.description.startswith("Made-up, torch 2.0, batch 8, 1 thread, float32, ")
    assert under.description.endswith(", load 0.5 to 1.2")
    assert under.to_json()["load"] == [0.5, 1.25]


# ---- measuring until it is known ------------------------------------------------------------------------------------


def timed(bench, until, seconds=100.0, expected_ms=10.0):
    (network,) = random_architectures(tiny_space(), 1, 10, 0)
    budget = Budget(seconds, bench.clock)
    return sample_case(bench, network_case(network), expected_ms, until, budget), budget


def test_measuring_goes_on_until_the_interval_is_narrow():
    bench = MadeBench(lambda _: 10.0, noise=0.03, memory=20, seed=3)
    short, _ = timed(bench, StoppingRule(lambda found: True, 0.0, 100.0))
    long, budget = timed(bench, StoppingRule(lambda found: found.half_width < 0.006, 0.0, 100.0))
    assert FEWEST_CALLS <= short.runs < 2 * FEWEST_CALLS < long.runs
    assert long.half_width < 0.006 < short.half_width
    assert long.seconds == pytest.approx(100.0 - budget.seconds)


def test_measuring_ends_with_its_time_and_lasts_the_least():
    bench = MadeBench(lambda _: 10.0, noise=0.03, seed=3)
    found, budget = timed(bench, StoppingRule(lambda found: False, 0.0, 5.0))
    assert 5.0 <= found.seconds < 5.6 and 94.4 < budget.seconds <= 95.0  # one visit of 0.25 s beyond, at most
    found, _ = timed(bench, StoppingRule(lambda found: True, 4.0, 5.0))
    assert 4.0 <= found.seconds < 5.5
    _, budget = timed(bench, StoppingRule(lambda found: False, 0.0, 5.0), seconds=1.0)
    assert budget.seconds == 0


# ---- a length chosen beforehand -------------------------------------------------------------------------------------


def length(most_seconds, half_width=1 / 300, pilot_seconds=10.0):
    return Length(half_width=half_width, pilot_seconds=pilot_seconds, most_seconds=most_seconds)


def measured(until, memory_s, deviation=0.005, seeds=200):
    """Certificates of 10 ms under noise that forgets within seconds, and the benches that they were made on."""
    benches = [SlowNoise(memory_s, deviation, seed) for seed in range(seeds)]
    return [timed(bench, until)[0] for bench in benches], benches


@pytest.mark.parametrize(
    ("memory_s", "parts"),
    [*(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1.2, 30), (1.8, 20))), (3.3, 10)],
)
def test_the_interval_of_a_measurement_holds_the_truth_about_as_often_as_it_says(memory_s, parts):
    """Noise that lasts a thirtieth to a tenth of the measurement, through the function that chooses how long it is."""
    found, _ = measured(length(60.0), memory_s)
    assert np.mean([one.seconds for one in found]) == pytest.approx(parts * memory_s, rel=0.15)
    assert np.ptp([one.seconds for one in found]) > 10  # the pilot does choose
    held = [one.interval_ms[0] <= 10 <= one.interval_ms[1] for one in found]
    assert np.mean(held) >= 0.865


@pytest.mark.slow
def test_stopping_when_the_interval_is_narrow_would_not():
    looking = StoppingRule(lambda found: found.half_width <= 1 / 300, 10.0, 60.0)
    found, _ = measured(looking, 1.2)
    held = [one.interval_ms[0] <= 10 <= one.interval_ms[1] for one in found]
    assert np.mean(held) < 0.865


def test_the_certificate_has_no_call_of_the_pilot():
    """The visits of the pilot take 10 ms a call, those after it 11: whatever the first say, the second are told."""

    class Turning(MadeBench):
        def calls_ms(self, true_ms):
            return super().calls_ms(true_ms * (1.0 if self.seconds < 4 else 1.1))

    bench = Turning(lambda _: 10.0, jitter=0.01)
    found, _ = timed(bench, length(60.0, pilot_seconds=4.5))
    assert 10.9 < found.interval_ms[0] <= found.mean_ms <= found.interval_ms[1] < 11.1


def test_the_length_is_what_the_pilot_says_and_half_more():
    """By the square of how much narrower the interval must be; three pilots at least, and no more than is left."""
    pilot_ms = series(480, 3, 1).tolist()
    wanted = length(1000.0, half_width=Certificate.of(pilot_ms, 10.0).half_width / 4)
    assert wanted.seconds_after(pilot_ms, 10.0) == pytest.approx(1.5 * 10 * 4**2)
    assert length(100.0, half_width=wanted.half_width).seconds_after(pilot_ms, 10.0) == 90.0
    assert length(1000.0, half_width=1.0).seconds_after(pilot_ms, 10.0) == 30.0


@pytest.mark.parametrize("seed", range(6))
def test_later_calls_do_not_change_the_length(seed):
    """The same pilot, and then a machine that is four times as noisy: who looks measures longer."""
    (plain, _), (loud, _) = (
        timed(SlowNoise(0.3, 0.005, seed, louder_from_s=after_s), length(60.0)) for after_s in (math.inf, 11.0)
    )
    assert loud.seconds == pytest.approx(plain.seconds, abs=1.0) and loud.half_width > 2 * plain.half_width


@pytest.mark.parametrize("memory_s", [0.3, 3.0, 30.0])
def test_the_time_budget_is_kept(memory_s):
    _, benches = measured(length(40.0), memory_s, deviation=0.02, seeds=10)
    taken = [bench.seconds - bench.visit_seconds[0] for bench in benches]  # the first one prepares
    assert 39 < max(taken) <= 40.2  # the last visit may be longer than all before


def test_a_network_too_slow_for_a_pilot_is_called_often_enough_all_the_same():
    bench = MadeBench(lambda _: 10_000.0, jitter=0.01)
    found, budget = timed(bench, length(20.0, pilot_seconds=2.0), 20.0, expected_ms=10_000.0)
    assert found.runs == FEWEST_CALLS and budget.seconds == 0


def test_visits_last_about_a_quarter_of_a_second():
    assert [calls_per_sample(ms) for ms in (0.01, 10.0, 240.0, 5000.0)] == [64, 25, 1, 1]


def test_a_bench_is_left_as_soon_as_it_is_enough():
    closed = []

    class Watched(MadeBench):
        def measure(self, cases, order, calls):
            try:
                yield from super().measure(cases, order, calls)
            finally:
                closed.append(len(self.visited))

    bench = Watched(lambda _: 10.0)
    timed(bench, StoppingRule(lambda found: True, 0.0, 1.0))
    assert closed == [len(bench.visited)] and len(bench.visited) == 2


def test_a_bench_that_ends_its_visits_is_asked_for_more():
    class Short(MadeBench):
        def measure(self, cases, order, calls):
            yield from super().measure(cases, order[:1], calls)

    found, _ = timed(Short(lambda _: 10.0), StoppingRule(lambda found: False, 0.0, 3.0))
    assert found.runs >= 290


def test_plain_visits_do_too():
    bench = MadeBench(lambda _: 10.0)
    (network,) = random_architectures(tiny_space(), 1, 10, 0)
    visits = bench.measure([network_case(network)], [0] * 100, 4)
    assert sample(visits, StoppingRule(lambda found: True, 0.0, 1.0), Budget(1.0, bench.clock)).runs == FEWEST_CALLS
