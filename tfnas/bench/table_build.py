"""What measuring any kind of table takes: rounds within a time budget, and a record of where and how it was done."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tfnas.bench.bench_config import BuildConfig
from tfnas.bench.benches import Bench
from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.measurement_journal import MeasurementJournal
from tfnas.bench.timing import InterleavedTiming, Timing
from tfnas.core import __version__
from tfnas.core.errors import RunFailed
from tfnas.latency.table_contents import BuildReport, Measurement
from tfnas.utils.text import parse_seconds

FEWEST_ROUNDS = 3
SHARE_BEFORE_REFINING = 0.7
"""Of the time budget."""
_MAY_CHANGE = ("out", "space", "worker", "worker_timeout")
_SINCE: dict[str, Any] = {"max_unit_macs": None}
"""Settings that earlier journals lack, with what they stand for then."""
_PROCEDURE = (
    "Each part alone, in interleaved rounds in random order, {calls} timed calls per measurement after one untimed; "
    "before every timed call a reference block runs and the input is rewritten; preempted calls, and measurements "
    "next to an erratic or slow reference, are repeated; ms = median of (ms / reference ms in the measurement) x "
    "median reference ms; threads bound to cores, memory allocator primed."
)


@dataclass(frozen=True)
class BuildStep:
    """What a build does next, for people: in words, at how many points, with at most how many measurements."""

    words: str
    points: int
    measurements: int


@dataclass(frozen=True)
class MeasuredSpace:
    """The space that a table is measured for; `fingerprint` says what its networks are."""

    name: str
    fingerprint: str
    image_size: int
    width_multiple: int


class SavedTable(Protocol):
    """A table that can be written."""

    def save(self, path: Path) -> None:
        """Write it. Raises RunFailed where that is not possible."""


class TableBuild:
    """The measurements of a build; every decision follows from those so far, so that a resumed build decides alike."""

    def __init__(
        self,
        config: BuildConfig,
        space: MeasuredSpace,
        bench: Bench,
        journal: MeasurementJournal,
        on_step: Callable[[BuildStep], None],
        on_measurement: Callable[[], None],
    ) -> None:
        self.config, self.on_step = config, on_step
        self._space, self._bench, self._journal = space, bench, journal
        self._timing = InterleavedTiming(journal.measure, config.calls, config.seed, on_measurement)
        self.budget_s = parse_seconds("time_budget", config.time_budget)

    @classmethod
    @contextmanager
    def open(
        cls,
        config: BuildConfig,
        space: MeasuredSpace,
        bench: Bench,
        on_step: Callable[[BuildStep], None],
        on_measurement: Callable[[], None],
    ) -> Iterator[TableBuild]:
        """The build of a configuration, resumed where FILE.partial has measurements of it.

        Raises InputError where it has those of another, RunFailed when it cannot be written.
        """
        out = Path(config.out)
        subject = _subject(config, space, bench)
        with MeasurementJournal.open(out.with_name(f"{out.name}.partial"), subject, bench) as journal:
            yield cls(config, space, bench, journal, on_step, on_measurement)

    @property
    def seconds(self) -> float:
        """Time that measuring has taken so far."""
        return self._journal.seconds

    def measure(self, cases: Sequence[BenchmarkCase], until_s: float, words: str | None = None) -> None:
        """Measure each case in as many rounds as end before `until_s` seconds of measuring, three at least.

        With `words` both parts are told as steps.
        """
        before, rounds = self.seconds, self.config.rounds
        least = min(rounds, FEWEST_ROUNDS)
        if words is not None:
            self.on_step(BuildStep(f"{words}, first rounds", len(cases), least * len(cases)))
        self._timing.run(cases, least)
        round_s = (self.seconds - before) / least
        more = max(0, min(rounds - least, int((until_s - self.seconds) / max(round_s, 1e-9))))
        if words is not None:
            self.on_step(BuildStep(words, len(cases), more * len(cases)))
        self._timing.run(cases, more)

    @property
    def reference_ms(self) -> float:
        """Median of the reference so far."""
        return self._timing.reference.median_ms

    def timing(self, case: BenchmarkCase, reference_ms: float) -> Timing:
        """Of one case; `reference_ms` is asked for once."""
        return self._timing.timing(case, reference_ms)

    def save(self, table: SavedTable) -> None:
        """Write the table and remove the journal. Raises RunFailed when it cannot be written."""
        out = Path(self.config.out)
        try:
            table.save(out)
        except RunFailed as error:
            raise RunFailed(
                f"{error}; measurements are saved in {out}.partial; run the same command to resume"
            ) from error
        self._journal.remove()

    def report(self, points: int, held_out: int, enumerated: int, reference: BenchmarkCase) -> BuildReport:
        """What it took; the numbers are of points that are used, that are not, and that all would be."""
        timing, (fastest, slowest) = self._timing.reference, self._timing.drift
        return BuildReport(
            points=points,
            held_out_points=held_out,
            enumerated_points=enumerated,
            seconds=self.seconds,
            visits=len(self._timing.in_order),
            repeated_visits=self._timing.repeated,
            reference=reference.name,
            reference_ms=timing.median_ms,
            reference_spread_ms=timing.spread_ms,
            slowest_drift=slowest,
            fastest_drift=fastest,
        )

    @property
    def measurement(self) -> Measurement:
        """Where and how it is measured, today."""
        config, space, bench = self.config, self._space, self._bench
        return Measurement(
            space=space.name,
            space_fingerprint=space.fingerprint,
            image_size=space.image_size,
            num_classes=config.num_classes,
            width_multiple=space.width_multiple,
            device=bench.device_name,
            device_kind=config.conditions.device_kind,
            worker=config.worker is not None,
            runtime=config.runtime,
            batch_size=config.batch,
            threads=config.threads,
            dtype=config.dtype,
            versions={"python": platform.python_version(), "tfnas": __version__, **bench.versions},
            date=datetime.date.today().isoformat(),
            procedure=_PROCEDURE.format(calls=config.calls),
            instruction_sets=bench.instruction_sets,
        )


def _subject(config: BuildConfig, space: MeasuredSpace, bench: Bench) -> dict[str, Any]:
    """What makes two builds the same: everything but where the result goes."""
    return {
        "space": space.fingerprint,
        "device": bench.device_name,
        "versions": {"tfnas": __version__, **bench.versions},
        **{
            name: value
            for name, value in vars(config).items()
            if name not in _MAY_CHANGE and (name not in _SINCE or value != _SINCE[name])
        },
    }
