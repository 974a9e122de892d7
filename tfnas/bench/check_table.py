"""Validating a latency table against whole networks, and correcting it.

Random networks of the table's space are timed where the table was measured, with some of its blocks. A
correction is fitted on a part of the networks and validated on the others; `decide` says whether the table changes.
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfnas.bench.bench_config import FEWEST_NETWORKS, SUFFIXES, CheckConfig
from tfnas.bench.check_inputs import CheckInputs, open_inputs
from tfnas.bench.check_report import FITTED, HELD_OUT, CheckedNetwork, CheckReport, MachineSpeed, check_picture
from tfnas.bench.check_timing import RoundsTimed, SampleBudget, ratio_now, time_in_rounds
from tfnas.core.errors import InputError
from tfnas.latency.correction_fit import (
    CorrectionFit,
    MeasuredNetworks,
    fit_correction,
    sum_errors,
)
from tfnas.latency.structure_table import AnyTable, load_table
from tfnas.latency.table_contents import Correction, SumErrors
from tfnas.utils.files import check_writable, write_whole
from tfnas.utils.text import parse_seconds

_SHOWS_PERCENT = 0.05


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
    inputs = open_inputs(config)
    _check_places(config)
    timed = time_in_rounds(
        inputs.bench,
        inputs.subject.cases,
        [case for case, _ in inputs.subject.blocks],
        SampleBudget(config.rounds, config.calls, parse_seconds("time_budget", config.time_budget), config.seed),
        on_measurement,
    )
    level = _level(inputs, timed)
    share = 1.0 if config.level == "now" else level.ratio
    samples = inputs.samples(np.array([timing.median_ms / share for timing in timed.networks]))
    outcome = decide(config, inputs, samples, level.ratio, timed.disturbance)
    report = _Found(config, inputs, timed, level, samples, outcome).report()
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


def _level(inputs: CheckInputs, timed: RoundsTimed) -> MachineSpeed:
    build = inputs.measurement_report
    return MachineSpeed(
        blocks=len(inputs.subject.blocks),
        ratio=ratio_now(timed.blocks, [before for _, before in inputs.subject.blocks]),
        reference_ms=timed.block_reference.median_ms,
        reference_before_ms=None if build is None else build.reference_ms,
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Everything that the report is made of."""

    config: CheckConfig
    inputs: CheckInputs
    timed: RoundsTimed
    level: MachineSpeed
    samples: MeasuredNetworks
    outcome: CalibrationOutcome

    def report(self) -> CheckReport:
        config, inputs, timed = self.config, self.inputs, self.timed
        numbers, plot = (str(config.result_path(suffix)) for suffix in SUFFIXES)
        return CheckReport(
            lookup_path=config.lookup_path,
            table=inputs.table.description,
            fingerprint=inputs.table.fingerprint,
            space=inputs.subject.space,
            image_size=inputs.measurement.image_size,
            num_classes=inputs.measurement.num_classes,
            device=inputs.bench.device_name,
            versions=dict(inputs.bench.versions),
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
            networks=tuple(self._network(index) for index in range(len(inputs.subject.networks))),
            present=inputs.table.contents.correction,
            fit=self.outcome.fit,
            verdict=self.outcome.verdict,
            table_written=None if self.outcome.table is None else str(config.table_path),
            plot_file=plot,
            numbers_file=numbers,
        )

    def _network(self, index: int) -> CheckedNetwork:
        network, fit = self.inputs.subject.networks[index], self.outcome.fit
        timing, measured_ms = self.timed.networks[index], float(self.samples.measured_ms[index])
        chosen = fitting_part(len(self.inputs.subject.networks), self.config.seed)
        return CheckedNetwork(
            part=FITTED if index in chosen else HELD_OUT,
            blocks=self.inputs.subject.num_blocks[index],
            sum_ms=float(self.samples.sum_ms[index]),
            predicted_ms=self.inputs.table.architecture_ms(network),
            corrected_ms=None if fit is None else float(fit.terms.predicted_ms(self.samples)[index]),
            measured_ms=measured_ms,
            spread_ms=timing.spread_ms * measured_ms / timing.median_ms,
            plain_ms=self.timed.plain[index].median_ms,
            runs=timing.runs,
            architecture=network.to_text(),
        )


# ---- what becomes of the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CalibrationOutcome:
    """The fit, if there is one; what becomes of it, in words; and the table to write, if there is one."""

    fit: CorrectionFit | None
    verdict: str
    table: AnyTable | None = None


def fitting_part(count: int, seed: int) -> list[int]:
    """Which of so many networks a correction is fitted to: half of them, drawn; none of too few."""
    if count < FEWEST_NETWORKS:
        return []
    return sorted(random.Random(f"part {seed}").sample(range(count), count // 2))


def decide(
    config: CheckConfig, inputs: CheckInputs, samples: MeasuredNetworks, machine_ratio: float, disturbance: str | None
) -> CalibrationOutcome:
    """Fit, validate, and decide on the table. `machine_ratio` is the present latency of single blocks over the table's.

    A new correction is stored where its median error on the held-out networks is smaller than that of the plain sum
    and of the correction that the table has. One that the table has is taken out where the plain sum is better. What
    does not show in a tenth of a percent is not better. Neither is done after a `disturbance`, which is in words, nor
    with another device or another version of the runtime than the table's, nor when the file has changed meanwhile.
    """
    chosen = fitting_part(len(samples), config.seed)
    if not chosen:
        return CalibrationOutcome(
            None, f"nothing is fitted: that takes {FEWEST_NETWORKS} networks, these are {len(samples)}"
        )
    is_fitted = np.isin(np.arange(len(samples)), chosen)
    fit = fit_correction(samples.where(is_fitted), inputs.subject.smallest)
    others = samples.where(~is_fitted)
    plain = sum_errors(others.sum_ms, others.measured_ms)
    new = None
    if fit is not None:
        new = Correction(
            **vars(fit.terms),
            fitted_networks=len(chosen),
            seed=config.seed,
            level=config.level,
            machine_ratio=machine_ratio,
            runtime=inputs.runtime_here,
            before=plain,
            after=sum_errors(fit.terms.predicted_ms(others), others.measured_ms),
            date=datetime.date.today().isoformat(),
        )
    present_ms = np.array([inputs.table.architecture_ms(network) for network in inputs.subject.networks])
    change, verdict = _changed(inputs, plain, sum_errors(present_ms[~is_fitted], others.measured_ms), new)
    if not change:
        return CalibrationOutcome(fit, verdict)
    if not config.correct:
        return CalibrationOutcome(fit, f"the table is unchanged, as --correct false asks; otherwise: {verdict}")
    obstacle = _obstacle(config, inputs, disturbance)
    if obstacle is not None:
        return CalibrationOutcome(fit, f"the table is unchanged: {obstacle}")
    return CalibrationOutcome(fit, verdict, inputs.table.with_correction(change[0], config.table_path))


def _obstacle(config: CheckConfig, inputs: CheckInputs, disturbance: str | None) -> str | None:
    """Why a table must not be changed by what was found, in words; None where nothing speaks against it."""
    if inputs.other_device:
        return "it was measured on another device than this one"
    if inputs.other_version is not None:
        return f"it {inputs.other_version}, so its blocks may take other times too; measure the table again"
    if disturbance is not None:
        return f"{disturbance}; make the machine quiet and check again"
    try:
        changed = load_table(config.lookup_path).fingerprint != inputs.table.fingerprint
    except InputError:
        changed = True
    return f"{config.lookup_path} was changed by another process in the meantime; check again" if changed else None


def _changed(
    inputs: CheckInputs, plain: SumErrors, present: SumErrors, new: Correction | None
) -> tuple[tuple[Correction | None] | None, str]:
    """The correction to store, or None in its place to take one out; or nothing at all; and why. By held-out errors."""
    has_one = inputs.table.contents.correction is not None
    best = min(plain.median_percent, present.median_percent)
    if new is not None and new.after.median_percent < best - _SHOWS_PERCENT:
        return (new,), "the new correction is stored in place of the old one" if has_one else "the correction is stored"
    if has_one and plain.median_percent < present.median_percent - _SHOWS_PERCENT:
        return (None,), "the table's correction is removed: on the held-out networks the uncorrected sum is better"
    if new is None:
        why = "no correction predicts held-out networks significantly better than the uncorrected sum"
    else:
        than = "the table's own correction" if present.median_percent < plain.median_percent else "the uncorrected sum"
        why = f"the new correction is no better than {than} on the held-out networks"
    return None, f"the table is unchanged: {why}"
