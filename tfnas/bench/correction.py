"""Fitting what a sum of blocks misses: network = scale * sum of parts + offset_ms + block_ms for every block.

A few noisy networks do not carry three free numbers. So the simplest form is taken that foretells networks which were
left out of its fit clearly better than simpler ones do; often that is the scale alone, or nothing at all.

Fitting a correction to one part of the networks, judging it by the other, and what becomes of it.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from tfnas.bench.check_config import FEWEST_NETWORKS, CheckConfig
from tfnas.bench.check_subject import CheckSubject
from tfnas.core.errors import InputError
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import Correction, SumErrors

FloatArray = NDArray[np.float64]

FEWEST_FITTED = 3
"""Networks per number to be fitted."""

_USUAL_NOISE = 0.01
_LEAST_NOISE = 1e-4
_MAD_TO_SIGMA = 1.4826
_OUTLYING = 1.5
_STANDARD_ERRORS_OF_ANY, _STANDARD_ERRORS_OF_MORE = 1.5, 2.5
_LEAST_GAIN = 0.001
_LEAST_SHARE = 0.1
_ITERATIONS = 30
_SETTLED = 1e-6


@dataclass(frozen=True, eq=False)
class Samples:
    """Whole networks, an entry each: the plain sum of their parts, how many blocks they have, what they measure."""

    sum_ms: FloatArray
    blocks: FloatArray
    measured_ms: FloatArray

    def __len__(self) -> int:
        return len(self.sum_ms)

    def where(self, chosen: NDArray[np.bool_]) -> Samples:
        """Those that are chosen."""
        return Samples(self.sum_ms[chosen], self.blocks[chosen], self.measured_ms[chosen])

    def without(self, index: int) -> Samples:
        """All but one."""
        return self.where(np.arange(len(self)) != index)


@dataclass(frozen=True)
class Terms:
    """The numbers of a correction; as they are here, they correct nothing."""

    scale: float = 1.0
    offset_ms: float = 0.0
    block_ms: float = 0.0

    def predicted_ms(self, samples: Samples) -> FloatArray:
        """Milliseconds of each network."""
        return self.scale * samples.sum_ms + self.offset_ms + self.block_ms * samples.blocks

    def keep_positive(self, smallest: Smallest) -> bool:
        """Whether every part keeps a tenth of its scaled milliseconds at least, so that nothing comes for free."""
        parts = (smallest.base_ms, self.offset_ms), (smallest.block_ms, self.block_ms)
        return self.scale > 0 and all(added >= (_LEAST_SHARE - 1) * self.scale * ms for ms, added in parts)


@dataclass(frozen=True)
class Smallest:
    """The least that a table holds for a base, with the cheapest number of classes, and for any block at any width."""

    base_ms: float
    block_ms: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted correction and how well its form, and no correction, foretell a network that is left out (mean, %)."""

    terms: Terms
    left_out_percent: float
    left_out_plain_percent: float


@dataclass(frozen=True)
class _Form:
    offset: bool
    block: bool

    @property
    def count(self) -> int:
        return 1 + self.offset + self.block

    def columns(self, samples: Samples) -> FloatArray:
        ones = np.ones(len(samples))
        chosen = [samples.sum_ms, *([ones] if self.offset else []), *([samples.blocks] if self.block else [])]
        return np.stack(chosen, 1) / samples.measured_ms[:, None]

    def terms(self, values: FloatArray) -> Terms:
        rest = [float(value) for value in values[1:]]
        return Terms(float(values[0]), rest.pop(0) if self.offset else 0.0, rest.pop(0) if self.block else 0.0)


_FORMS = (_Form(False, False), _Form(True, False), _Form(False, True), _Form(True, True))


def fit_correction(samples: Samples, smallest: Smallest) -> Fit | None:
    """The correction to use, or None where none is clearly better than the plain sum.

    Relative errors count. A form wins over a simpler one when, network by network left out, its errors are smaller
    on average by more than one and a half times the standard error of that (two and a half times, where the simpler
    one is a correction already), and by 0.1 % at least; networks that no fit has seen judge it afterwards. Single
    networks that were disturbed pull little (soft-L1 loss). Forms that leave a part less than a tenth of its scaled
    milliseconds do not count.
    """
    best, best_count = Terms(), 0
    plain = best_errors = np.abs(Terms().predicted_ms(samples) / samples.measured_ms - 1)
    for count in sorted({form.count for form in _FORMS}):
        candidates = list(_candidates(samples, smallest, count))
        if not candidates:
            continue
        terms, errors = min(candidates, key=lambda candidate: float(candidate[1].mean()))
        needed = _STANDARD_ERRORS_OF_MORE if best_count else _STANDARD_ERRORS_OF_ANY
        if _clearly_better(errors, best_errors, needed):
            best, best_errors, best_count = terms, errors, count
    if best_count == 0:
        return None
    return Fit(best, 100 * float(best_errors.mean()), 100 * float(plain.mean()))


def _candidates(samples: Samples, smallest: Smallest, count: int) -> Iterator[tuple[Terms, FloatArray]]:
    """Forms of so many numbers: fitted to everything, and the sizes of their errors on each network left out."""
    for form in _FORMS:
        if form.count != count or len(samples) < FEWEST_FITTED * count:
            continue
        columns = form.columns(samples)
        if np.linalg.matrix_rank(columns / np.abs(columns).max(0).clip(min=1e-12), tol=1e-6) < count:
            continue  # such as networks that all have as many blocks: offset and block cannot be told apart
        terms = _fitted(form, samples)
        if terms.keep_positive(smallest):
            foretold = [_fitted(form, samples.without(i)).predicted_ms(samples)[i] for i in range(len(samples))]
            yield terms, np.abs(np.array(foretold) / samples.measured_ms - 1)


def _clearly_better(errors: FloatArray, than: FloatArray, standard_errors: float) -> bool:
    gain = than - errors
    standard_error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return bool(gain.mean() > max(_LEAST_GAIN, standard_errors * standard_error))


def _fitted(form: _Form, samples: Samples) -> Terms:
    """Least relative errors, where those far beyond the usual count by their size and not by its square (soft L1).

    By iteratively reweighted least squares (Holland and Welsch 1977), the loss being convex.
    """
    columns = form.columns(samples)
    sizes = np.abs(columns).max(0).clip(min=1e-12)
    columns = columns / sizes
    noise = _USUAL_NOISE
    values = np.linalg.lstsq(columns, np.ones(len(columns)), rcond=None)[0]
    for _ in range(2):
        for _ in range(_ITERATIONS):
            before = values
            weights = (1 + ((columns @ values - 1) / noise) ** 2) ** -0.25  # the root of the loss's own weights
            values = np.linalg.lstsq(columns * weights[:, None], weights, rcond=None)[0]
            if np.abs(values - before).max() < _SETTLED * np.abs(values).max():
                break
        noise = _OUTLYING * max(_LEAST_NOISE, _spread(columns @ values - 1, form.count))
    return form.terms(values / sizes)


def _spread(misses: FloatArray, count: int) -> float:
    """Standard deviation as the median size tells it, allowing for the numbers fitted."""
    free = max(1, len(misses) - count) / len(misses)
    return _MAD_TO_SIGMA * float(np.median(np.abs(misses))) / math.sqrt(free)


def sum_errors(predicted_ms: FloatArray, measured_ms: FloatArray) -> SumErrors:
    """How far predictions are off. Kendall's tau is 0 where there is no order to compare: fewer than two differ."""
    percent = 100 * (predicted_ms / measured_ms - 1)
    ordered = len(percent) > 1 and np.ptp(predicted_ms) > 0 and np.ptp(measured_ms) > 0
    return SumErrors(
        networks=len(percent),
        bias_percent=float(np.median(percent)),
        median_percent=float(np.median(np.abs(percent))),
        worst_percent=float(np.abs(percent).max()),
        kendall_tau=float(kendalltau(predicted_ms, measured_ms).statistic) if ordered else 0.0,
    )


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
