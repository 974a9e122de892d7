"""Holding a latency table against whole networks, and correcting it for what a sum of blocks misses."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfnas.bench.benchmark_cases import network_case
from tfnas.bench.check_config import SUFFIXES, CheckConfig
from tfnas.bench.check_plot import check_picture
from tfnas.bench.check_report import FITTED, HELD_OUT, CheckedNetwork, CheckReport, Level
from tfnas.bench.check_subject import CheckSubject, open_subject
from tfnas.bench.check_timing import Effort, RoundsTimed, ratio_now, time_in_rounds
from tfnas.bench.correction import Outcome, Samples, decide, fitting_part, samples_of
from tfnas.utils.files import check_writable, write_whole
from tfnas.utils.text import seconds_of


def check_table(
    config: CheckConfig,
    *,
    on_measurement: Callable[[int, int], None] = lambda *_: None,
    on_found: Callable[[CheckReport], None] = lambda _: None,
) -> CheckReport:
    """Time random whole networks where the table was measured; compare, plot, and correct the table.

    `on_measurement` is called with the number of measurements made, and of all that there will be. What it raises ends
    the check, and nothing is written. `on_found` is called with the findings before they are written. A correction is
    fitted to the uncorrected sums, never on top of one that the table has.

    Raises:
        InputError: The table, its space or its device does not allow it; the message says why.
        RunFailed: A file cannot be written, or a worker does not answer.
    """
    subject = open_subject(config)
    _check_places(config)
    timed = time_in_rounds(
        subject.bench,
        [network_case(network) for network in subject.networks],
        [case for case, _ in subject.blocks],
        Effort(config.rounds, config.calls, seconds_of("time_budget", config.time_budget), config.seed),
        on_measurement,
    )
    level = _level(subject, timed)
    share = 1.0 if config.level == "now" else level.ratio
    samples = samples_of(subject, np.array([timing.median_ms / share for timing in timed.networks]))
    outcome = decide(config, subject, samples, level.ratio, timed.disturbance)
    report = _Found(config, subject, timed, level, samples, outcome).report()
    on_found(report)
    if outcome.table is not None:
        outcome.table.save(config.table_path)  # first: nothing else may say that it is written when it is not
    numbers, plot = (config.result_path(suffix) for suffix in SUFFIXES)
    write_whole(numbers, json.dumps(report.to_json(), indent=1) + "\n")
    write_whole(plot, check_picture(report))
    return report


def _check_places(config: CheckConfig) -> None:
    """Better to know before measuring for minutes that a result cannot be written."""
    paths = [config.result_path(suffix) for suffix in SUFFIXES]
    if config.correct:
        paths.append(config.table_path)
    for path in paths:
        check_writable(path)


def _level(subject: CheckSubject, timed: RoundsTimed) -> Level:
    build = subject.measurement_report
    return Level(
        blocks=len(subject.blocks),
        ratio=ratio_now(timed.blocks, [before for _, before in subject.blocks]),
        reference_ms=timed.block_reference.median_ms,
        reference_before_ms=None if build is None else build.reference_ms,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Everything that the report is made of."""

    config: CheckConfig
    subject: CheckSubject
    timed: RoundsTimed
    level: Level
    samples: Samples
    outcome: Outcome

    def report(self) -> CheckReport:
        config, subject, timed = self.config, self.subject, self.timed
        numbers, plot = (str(config.result_path(suffix)) for suffix in SUFFIXES)
        return CheckReport(
            lookup_path=config.lookup_path,
            table=subject.table.description,
            fingerprint=subject.table.fingerprint,
            space=subject.space.name,
            image_size=subject.space.image_size,
            num_classes=subject.measurement.num_classes,
            device=subject.bench.device_name,
            versions=dict(subject.bench.versions),
            date=datetime.date.today().isoformat(),
            seed=config.seed,
            rounds=timed.rounds,
            calls=config.calls,
            seconds=timed.seconds,
            evened=timed.is_evened,
            cpu_share=timed.cpu_share,
            lost_core_per_s=timed.lost_core_per_s,
            disturbance=timed.disturbance,
            at_level=config.level,
            level=self.level,
            networks=tuple(self._network(index) for index in range(len(subject.networks))),
            present=subject.table.contents.correction,
            fit=self.outcome.fit,
            verdict=self.outcome.verdict,
            table_written=None if self.outcome.table is None else str(config.table_path),
            plot_file=plot,
            numbers_file=numbers,
        )

    def _network(self, index: int) -> CheckedNetwork:
        network, fit = self.subject.networks[index], self.outcome.fit
        timing, measured_ms = self.timed.networks[index], float(self.samples.measured_ms[index])
        chosen = fitting_part(len(self.subject.networks), self.config.seed)
        return CheckedNetwork(
            part=FITTED if index in chosen else HELD_OUT,
            blocks=len(network.blocks),
            sum_ms=float(self.samples.sum_ms[index]),
            predicted_ms=self.subject.table.architecture_ms(network),
            corrected_ms=None if fit is None else float(fit.terms.predicted_ms(self.samples)[index]),
            measured_ms=measured_ms,
            spread_ms=timing.spread_ms * measured_ms / timing.median_ms,
            plain_ms=self.timed.plain[index].median_ms,
            runs=timing.runs,
            architecture=network.to_text(),
        )
