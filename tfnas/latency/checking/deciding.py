"""Fitting a correction to one part of the networks, judging it by the other, and what becomes of it."""

from __future__ import annotations

import dataclasses
import datetime
import random
from dataclasses import dataclass

import numpy as np

from tfnas.errors import InputError
from tfnas.latency.checking.config import FEWEST_NETWORKS, CheckConfig
from tfnas.latency.checking.correcting import Fit, FloatArray, Samples, Smallest, fit_correction, sum_errors
from tfnas.latency.checking.subject import CheckSubject
from tfnas.latency.contents import Correction, SumErrors
from tfnas.latency.table import LatencyTable

_SHOWS_PERCENT = 0.05


@dataclass(frozen=True, eq=False)
class Outcome:
    """The fit, if there is one; what becomes of it, in words; and the table to write, if there is one."""

    fit: Fit | None
    verdict: str
    table: LatencyTable | None = None


def fitting_part(count: int, seed: int) -> list[int]:
    """Which of so many networks a correction is fitted to: half of them, drawn; none of too few."""
    if count < FEWEST_NETWORKS:
        return []
    return sorted(random.Random(f"part {seed}").sample(range(count), count // 2))


def decide(
    config: CheckConfig, subject: CheckSubject, samples: Samples, machine_ratio: float, disturbance: str | None
) -> Outcome:
    """Fit, judge, and say whether the table is to be changed. `machine_ratio` is what blocks take now over the table's.

    A new correction is stored where its median error on the held-out networks is smaller than that of the plain sum
    and of the correction that the table has. One that the table has is taken out where the plain sum is better. What
    does not show in a tenth of a percent is not better. Neither is done after a `disturbance`, which is in words, nor
    with another device or another version of the runtime than the table's, nor when the file has changed meanwhile.
    """
    chosen = fitting_part(len(samples), config.seed)
    if not chosen:
        return Outcome(None, f"nothing is fitted: that takes {FEWEST_NETWORKS} networks, these are {len(samples)}")
    is_fitted = np.isin(np.arange(len(samples)), chosen)
    fit = fit_correction(samples.where(is_fitted), smallest_of(subject.plain))
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
            runtime=subject.runtime_here,
            before=plain,
            after=sum_errors(fit.terms.predicted_ms(others), others.measured_ms),
            date=datetime.date.today().isoformat(),
        )
    present_ms = np.array([subject.table.architecture_ms(network) for network in subject.networks])
    change, verdict = _judged(subject, plain, sum_errors(present_ms[~is_fitted], others.measured_ms), new)
    if not change:
        return Outcome(fit, verdict)
    if not config.correct:
        return Outcome(fit, f"the table stays as it is, as --correct false asks; else: {verdict}")
    hindrance = _hindrance(config, subject, disturbance)
    if hindrance is not None:
        return Outcome(fit, f"the table stays as it is: {hindrance}")
    contents = dataclasses.replace(subject.table.contents, correction=change[0])
    return Outcome(fit, verdict, LatencyTable(contents, f"latency table {config.table_path}", config.table_path))


def _hindrance(config: CheckConfig, subject: CheckSubject, disturbance: str | None) -> str | None:
    """Why a table must not be changed by what was found, in words; None where nothing speaks against it."""
    if subject.other_device:
        return "it was measured on another device than this one"
    if subject.other_version is not None:
        return f"it {subject.other_version}, so its blocks may take other times too; measure the table again"
    if disturbance is not None:
        return f"{disturbance}; make the machine quiet and check again"
    try:
        changed = LatencyTable.load(config.lookup_path).fingerprint != subject.table.fingerprint
    except InputError:
        changed = True
    return f"{config.lookup_path} has been changed by somebody else meanwhile; check again" if changed else None


def _judged(
    subject: CheckSubject, plain: SumErrors, present: SumErrors, new: Correction | None
) -> tuple[tuple[Correction | None] | None, str]:
    """The correction to store, or None in its place to take one out; or nothing at all; and why. By held-out errors."""
    has_one = subject.table.contents.correction is not None
    best = min(plain.median_percent, present.median_percent)
    if new is not None and new.after.median_percent < best - _SHOWS_PERCENT:
        return (new,), "the new correction is stored in place of the old one" if has_one else "the correction is stored"
    if has_one and plain.median_percent < present.median_percent - _SHOWS_PERCENT:
        return (None,), "the table's correction is taken out: on the held-out networks the plain sum is better"
    if new is None:
        why = "no correction foretells networks left out of its fit clearly better than the plain sum"
    else:
        than = "the correction that the table has" if present.median_percent < plain.median_percent else "the plain sum"
        why = f"the new correction is no better than {than} on the held-out networks"
    return None, f"the table stays as it is: {why}"


def samples_of(subject: CheckSubject, measured_ms: FloatArray) -> Samples:
    """The networks of a check with their plain sums."""
    return Samples(
        sum_ms=np.array([subject.plain.architecture_ms(network) for network in subject.networks]),
        blocks=np.array([float(len(network.blocks)) for network in subject.networks]),
        measured_ms=measured_ms,
    )


def smallest_of(plain: LatencyTable) -> Smallest:
    """The least that a table without its correction holds."""
    contents = plain.contents
    assert contents.classifier is not None  # every table that says how it was measured has one
    stems = sum(part.ms for part in contents.base.values())
    blocks = min(float(curve.dense_ms(contents.classes).min()) for curve in contents.curves.values())
    return Smallest(stems + float(contents.classifier.curve.dense_ms().min()), blocks)
