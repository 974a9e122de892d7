"""Measuring the latency table of a space: few points, chosen where they are needed, and a stated error.

First some curves are measured at many widths, to detect which widths the device prefers. Then every curve gets the ends
of its range and a width between, and more widths where the interpolation error is large. Random points, measured
alongside and never used, estimate the error of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tfnas.bench.bench_config import BuildConfig
from tfnas.bench.benches import open_bench, reference_case
from tfnas.bench.benchmark_cases import BenchmarkCase, classifier_case, stem_cases
from tfnas.bench.build_points import TablePoint, case_at, drawn_points, first_widths, probe_widths, probed_keys
from tfnas.bench.table_build import SHARE_BEFORE_REFINING, BuildStep, MeasuredSpace, TableBuild
from tfnas.bench.timing import Timing
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import (
    BasePart,
    ClassifierPart,
    Curve,
    Measurement,
    TableContents,
    WidthClasses,
)
from tfnas.latency.width_alignment import fit_width_classes
from tfnas.spaces.mbconv.table_keys import (
    STEM_PARTS,
    KeyWidths,
    classifier_key,
    stem_keys,
    widths_by_key,
)
from tfnas.utils.files import check_writable
from tfnas.utils.text import parse_share

_CLASS_COUNTS = (1, 10, 100, 1000)
_NOISE = 2.0
_FEWER_THAN_ALL = 32
_MORE_THAN_FIRST = 1.25


def build_table(
    config: BuildConfig,
    *,
    on_step: Callable[[BuildStep], None] = lambda _: None,
    on_measurement: Callable[[], None] = lambda: None,
) -> LatencyTable:
    """Measure the table, write it to `config.out` and return it.

    `on_step` and `on_measurement` are called with the progress. What `on_measurement` raises ends the build; the same
    call resumes it.

    Raises:
        InputError: The space, the runtime or the device is not there, or FILE.partial is of another build.
        RunFailed: A file cannot be written, or a worker does not answer.
    """
    space = config.opened_space()
    bench = open_bench(config.conditions, reference_case(space), config.worker, config.seed, config.worker_timeout)
    check_writable(Path(config.out))
    measured = MeasuredSpace(space.name, space.fingerprint, space.image_size, space.width_multiple)
    with TableBuild.open(config, measured, bench, on_step, on_measurement) as session:
        build = _Build(config, space, session)
        build.run()
        table = LatencyTable(build.contents(session.measurement), f"latency table {config.out}", config.out)
        table.check(space)
        session.save(table)
    return table


class _Build:
    """The state of a build; every decision follows from the samples so far, so that a resumed build decides alike."""

    def __init__(self, config: BuildConfig, space: SearchSpace, session: TableBuild) -> None:
        self._config, self._space, self._session = config, space, session
        self._tolerance = parse_share("tolerance", config.tolerance)
        self._widths = widths_by_key(space)
        self._shallowest = space.shallowest(config.num_classes)
        self._stems = stem_cases(self._shallowest)
        counts = sorted({*_CLASS_COUNTS, config.num_classes})
        self._classifiers = {count: classifier_case(self._shallowest, count) for count in counts}
        self._classes = WidthClasses()
        self._used: set[TablePoint] = set()
        self._held_out: set[TablePoint] = set()

    def run(self) -> None:
        """Everything that is measured."""
        parts = [*self._stems.values(), *self._classifiers.values()]
        probes = [
            TablePoint(key, width)
            for key in probed_keys(self._widths)
            for width in probe_widths(self._widths[key].widths)
        ]
        self._measure("detecting preferred widths", probes, parts)
        self._classes = fit_width_classes(list(self._curves(self._used).values()))
        first = [
            TablePoint(key, width)
            for key, entry in self._widths.items()
            for width in first_widths(entry.widths, self._classes)
        ]
        drawn = drawn_points(self._widths, self._config.held_out, self._config.seed, {*first, *self._used})
        self._held_out = set(drawn)
        self._measure("measuring every block", first, held_out=drawn)
        frontier, most_points = self._refinements(self._used), self._most_points()
        while frontier and self._session.seconds < self._session.budget_s:
            self._measure("refining where the interpolation error is large", frontier[: most_points - self._points])
            frontier = self._refinements(frontier) if self._points < most_points else []

    @property
    def _points(self) -> int:
        """How many have been measured, used or not."""
        return len(self._used) + len(self._held_out)

    def _most_points(self) -> int:
        """Where to end; to be asked for when all points are there that every block needs.

        A noisy machine asks for more and more points, which do not help against noise.
        """
        if self._config.max_points is not None:
            return max(self._config.max_points, self._points)
        return max(_enumerated(self._widths) // _FEWER_THAN_ALL, math.ceil(_MORE_THAN_FIRST * self._points))

    # ---- measuring --------------------------------------------------------------------------------------------

    def _measure(
        self,
        words: str,
        points: Iterable[TablePoint],
        parts: Iterable[BenchmarkCase] = (),
        held_out: Iterable[TablePoint] = (),
    ) -> None:
        """Measure what has not been measured yet, in as many rounds as the time budget allows."""
        points = [point for point in points if point not in self._used]
        cases = [*parts, *(self._case(point) for point in (*points, *held_out))]
        until_s = SHARE_BEFORE_REFINING * self._session.budget_s
        self._session.measure(cases, until_s, words)
        self._used.update(points)

    def _case(self, point: TablePoint) -> BenchmarkCase:
        return case_at(self._widths[point.key], point.width)

    def _refinements(self, measured: Iterable[TablePoint]) -> list[TablePoint]:
        """Widths half-way to both neighbours of every point whose interpolation without it is off.

        An error counts beyond the tolerance, and beyond the noise of the point itself. The largest errors come first.
        """
        curves = self._curves(self._used)
        reference_ms = self._session.reference_ms
        wanted: dict[TablePoint, float] = {}
        for point in measured:
            around = _neighbours(curves[point.key], point.width, self._classes)
            if around is None:
                continue
            timing = self._session.timing(self._case(point), reference_ms)
            noise = _NOISE * timing.standard_error_ms / timing.median_ms
            missed = abs(_interpolation_error(curves[point.key], point.width, self._classes))
            if missed > max(self._tolerance, noise):
                wanted |= {more: max(missed, wanted.get(more, 0.0)) for more in self._half_way(point, around)}
        new = wanted.keys() - self._used - self._held_out
        return sorted(new, key=lambda more: (-wanted[more], more))

    def _half_way(self, point: TablePoint, around: tuple[int, int]) -> Iterator[TablePoint]:
        aligned = point.width % self._classes.multiple == 0
        stair = self._classes.multiples_stair if aligned else self._classes.others_stair
        for other in around:
            low, high = sorted((point.width, other))
            between = [
                width
                for width in self._widths[point.key].widths
                if low < width < high
                and (width % self._classes.multiple == 0) == aligned
                and len({-(-place // stair) for place in (low, width, high)}) == 3
                and TablePoint(point.key, width) not in self._held_out
            ]
            if between:
                yield TablePoint(point.key, between[len(between) // 2])

    # ---- the result -------------------------------------------------------------------------------------------

    def _curves(self, points: Iterable[TablePoint]) -> dict[str, Curve]:
        """What has been measured at these points, by key."""
        reference_ms = self._session.reference_ms
        rows: dict[str, dict[int, Timing]] = {}
        for point in sorted(points):
            rows.setdefault(point.key, {})[point.width] = self._session.timing(self._case(point), reference_ms)
        return {key: _curve(row) for key, row in rows.items()}

    def contents(self, measurement: Measurement) -> TableContents:
        """The table."""
        reference_ms = self._session.reference_ms
        timings = {name: self._session.timing(case, reference_ms) for name, case in self._stems.items()}
        keys = stem_keys(self._shallowest)
        counts = {count: self._session.timing(load, reference_ms) for count, load in self._classifiers.items()}
        curves = self._curves(self._used)
        return TableContents(
            base={name: BasePart(keys[name], timings[name].median_ms, timings[name].spread_ms) for name in STEM_PARTS},
            curves={key: curves[key] for key in self._widths},
            measurement=measurement,
            classifier=ClassifierPart(classifier_key(self._shallowest), _curve(counts)),
            classes=self._classes,
            held_out=self._curves(self._held_out),
            build=self._session.report(
                len(self._used), len(self._held_out), _enumerated(self._widths), reference_case(self._space)
            ),
        )


def _enumerated(space_widths: Mapping[str, KeyWidths]) -> int:
    """How many points every width would need."""
    return sum(len(widths.widths) for widths in space_widths.values())


def _curve(timings: Mapping[int, Timing]) -> Curve:
    rows = sorted(timings.items())
    return Curve(
        tuple(width for width, _ in rows),
        tuple(timing.median_ms for _, timing in rows),
        tuple(timing.spread_ms for _, timing in rows),
    )


def _neighbours(curve: Curve, width: int, classes: WidthClasses) -> tuple[int, int] | None:
    """The measured widths of the same class on both sides of a width, or None at either end."""
    same = [w for w in curve.widths if (w % classes.multiple == 0) == (width % classes.multiple == 0)]
    place = same.index(width)
    return (same[place - 1], same[place + 1]) if 0 < place < len(same) - 1 else None


def _interpolation_error(curve: Curve, width: int, classes: WidthClasses) -> float:
    """Relative error of the curve without a width, at that width."""
    rest = curve.without(width)
    return float(rest.dense_ms(classes)[width - rest.widths[0]]) / curve.ms[curve.widths.index(width)] - 1
