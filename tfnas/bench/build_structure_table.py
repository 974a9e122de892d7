"""Measuring the latency table of a structure space: few units, more where the model errs, and a stated error.

First units evenly over the ranges of channels of every kind, and as many of random networks; then units near those that
the others predict badly. Units of other random networks, measured alongside and never used, estimate the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tfnas.bench.bench_config import BuildConfig
from tfnas.bench.benches import open_bench
from tfnas.bench.benchmark_cases import structure_reference_case, unit_case
from tfnas.bench.structure_points import UnitRanges
from tfnas.bench.table_build import SHARE_BEFORE_REFINING, BuildStep, MeasuredSpace, TableBuild
from tfnas.core.errors import InputError
from tfnas.latency.structure_table import StructureTable
from tfnas.latency.structure_table_json import StructureTableContents, UnitTiming
from tfnas.latency.table_contents import Measurement
from tfnas.latency.unit_latency_model import UnitLatencyModel
from tfnas.spaces.zen.structure_spaces import structure_space
from tfnas.spaces.zen.unit_shapes import UnitShape
from tfnas.spaces.zen.zen_family import ZenFamily
from tfnas.utils.files import check_writable
from tfnas.utils.text import parse_share

_PER_KIND = 3
_NOISE = 2.0
_MORE_THAN_FIRST = 1.5
_AT_ONCE = 64
_WEIGHTS_AT_ONCE = 2**25
_USED, _HELD_OUT, _REFINED = 2, 3, 4
"""What random numbers are drawn for."""


def structure_family(config: BuildConfig) -> ZenFamily:
    """The family of networks that a table is built for. Raises InputError where there is none that can be measured."""
    if config.cost != "ms":
        raise InputError(
            f"--cost {config.cost} needs no table for structures: every command counts them, and tfnas evolve takes "
            f"--max_{config.cost}"
        )
    if config.width_multiple is not None:
        raise InputError("--width_multiple is for spaces of MBConv blocks: structures have multiples of 8 channels")
    family = structure_space(config.space, image_size=config.image_size, num_classes=config.num_classes)
    if family.initial.is_video:
        raise InputError(f"--space {config.space} is of networks for videos, and only those for images can be timed")
    return family


def build_structure_table(
    config: BuildConfig,
    *,
    on_step: Callable[[BuildStep], None] = lambda _: None,
    on_measurement: Callable[[], None] = lambda: None,
) -> StructureTable:
    """Measure the table, write it to `config.out` and return it; progress and errors as of `build_table`."""
    family = structure_family(config)
    reference = structure_reference_case(family.initial)
    bench = open_bench(config.conditions, reference, config.worker, config.seed, config.worker_timeout)
    check_writable(Path(config.out))
    space = MeasuredSpace(family.mutation.rules.name, family.fingerprint, family.initial.image_size, 1)
    with TableBuild.open(config, space, bench, on_step, on_measurement) as session:
        build = _StructureBuild(config, UnitRanges.of(family, config.seed, config.max_unit_macs), session)
        build.run()
        table = StructureTable(build.contents(session.measurement), f"latency table {config.out}", config.out)
        session.save(table)
    return table


class _StructureBuild:
    """The state of a build; every decision follows from the samples so far, so that a resumed build decides alike."""

    def __init__(self, config: BuildConfig, ranges: UnitRanges, session: TableBuild) -> None:
        self._config, self._ranges, self._session = config, ranges, session
        self._tolerance = parse_share("tolerance", config.tolerance)
        self._used: list[UnitShape] = []
        self._held_out: list[UnitShape] = []

    def run(self) -> None:
        """Everything that is measured."""
        config, session = self._config, self._session
        even = self._ranges.first_units(_PER_KIND, config.seed)
        first = [*even, *self._ranges.network_units(len(even), (config.seed, _USED), even)]
        self._held_out = self._ranges.network_units(config.held_out, (config.seed, _HELD_OUT), first)
        self._measure("measuring units", first, self._held_out, until_s=SHARE_BEFORE_REFINING * session.budget_s)
        generator = np.random.default_rng((config.seed, _REFINED))
        most = config.max_points or round(_MORE_THAN_FIRST * self._points)
        while self._points < most and session.seconds < session.budget_s:
            near = self._refinements(min(_AT_ONCE, most - self._points), generator)
            if not near:
                break
            self._measure("refining where the model errs", near, until_s=session.budget_s)

    @property
    def _points(self) -> int:
        """How many have been measured, used or not."""
        return len(self._used) + len(self._held_out)

    def _measure(
        self, words: str, units: list[UnitShape], held_out: Iterable[UnitShape] = (), *, until_s: float
    ) -> None:
        """Measure what has not been measured, a part after the other, since all modules of a part stay in memory.

        Every part has units of all kinds. The time that is left is shared among the parts.
        """
        session, units_now = self._session, [*units, *held_out]
        session.on_step(BuildStep(words, len(units_now), self._config.rounds * len(units_now)))
        order = np.random.default_rng((self._config.seed, len(self._used))).permutation(len(units_now))
        parts = list(_parts(units_now[place] for place in order))
        for number, part in enumerate(parts):
            share_s = max(0.0, until_s - session.seconds) / (len(parts) - number)
            session.measure([unit_case(shape) for shape in part], session.seconds + share_s)
        self._used += units

    def _refinements(self, count: int, generator: np.random.Generator) -> list[UnitShape]:
        """Units near those that the others predict badly: beyond the tolerance and their own noise, the worst first."""
        timings = self._timings(self._used)
        errors = np.abs(UnitLatencyModel.of_timings(timings).left_out_errors)
        noise = [timing.noise for timing in timings.values()]
        taken = {*self._used, *self._held_out}
        found: list[UnitShape] = []
        for place in np.argsort(-errors, kind="stable")[: 2 * count]:
            if errors[place] <= max(self._tolerance, _NOISE * noise[place]) or len(found) == count:
                continue
            near = self._ranges.near(self._used[place], generator, taken)
            if near is not None:
                found.append(near)
                taken.add(near)
        return found

    # ---- the result -------------------------------------------------------------------------------------------

    def _timings(self, units: Iterable[UnitShape]) -> dict[UnitShape, UnitTiming]:
        """What has been measured of these units."""
        reference_ms, found = self._session.reference_ms, {}
        for shape in units:
            timing = self._session.timing(unit_case(shape), reference_ms)
            found[shape] = UnitTiming(timing.median_ms, timing.spread_ms, timing.runs)
        return found

    def contents(self, measurement: Measurement) -> StructureTableContents:
        """The table."""
        reference = structure_reference_case(self._ranges.family.initial)
        report = self._session.report(len(self._used), len(self._held_out), self._ranges.enumerated, reference)
        return StructureTableContents(
            measurement=measurement,
            points=self._timings(sorted(self._used)),
            held_out=self._timings(sorted(self._held_out)),
            build=report,
        )


def _parts(units: Iterable[UnitShape]) -> Iterator[list[UnitShape]]:
    """Units in parts, with a limit on how many there are and on their weights."""
    part: list[UnitShape] = []
    weights = 0
    for shape in units:
        params = shape.counts.params
        if part and (len(part) == _AT_ONCE or weights + params > _WEIGHTS_AT_ONCE):
            yield part
            part, weights = [], 0
        part.append(shape)
        weights += params
    if part:
        yield part
