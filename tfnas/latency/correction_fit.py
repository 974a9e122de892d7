"""Fitting a table's correction: network = scale * sum of parts + offset_ms + block_ms for every block.

A few noisy networks do not carry three free numbers. So the simplest form is chosen that predicts held-out networks
significantly better than simpler ones; often that is the scale alone, or nothing at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import SumErrors

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
class MeasuredNetworks:
    """Whole networks, an entry each: uncorrected sum of parts, number of blocks, and measured latency."""

    sum_ms: FloatArray
    blocks: FloatArray
    measured_ms: FloatArray

    def __len__(self) -> int:
        return len(self.sum_ms)

    def where(self, chosen: NDArray[np.bool_]) -> MeasuredNetworks:
        """Those that are chosen."""
        return MeasuredNetworks(self.sum_ms[chosen], self.blocks[chosen], self.measured_ms[chosen])

    def without(self, index: int) -> MeasuredNetworks:
        """All but one."""
        return self.where(np.arange(len(self)) != index)


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of a correction; as they are here, they correct nothing."""

    scale: float = 1.0
    offset_ms: float = 0.0
    block_ms: float = 0.0

    def predicted_ms(self, samples: MeasuredNetworks) -> FloatArray:
        """Milliseconds of each network."""
        return self.scale * samples.sum_ms + self.offset_ms + self.block_ms * samples.blocks

    def keep_positive(self, smallest: SmallestParts) -> bool:
        """Whether every part keeps a tenth of its scaled milliseconds at least, so that nothing comes for free."""
        parts = (smallest.base_ms, self.offset_ms), (smallest.block_ms, self.block_ms)
        return self.scale > 0 and all(added >= (_LEAST_SHARE - 1) * self.scale * ms for ms, added in parts)


@dataclass(frozen=True)
class SmallestParts:
    """The lowest latency in a table of a base, with the cheapest number of classes, and of any block at any width."""

    base_ms: float
    block_ms: float


@dataclass(frozen=True, eq=False)
class CorrectionFit:
    """A fitted correction, and the leave-one-out errors of its form and of no correction (mean, %)."""

    terms: Coefficients
    left_out_percent: float
    left_out_plain_percent: float


@dataclass(frozen=True)
class _Form:
    offset: bool
    block: bool

    @property
    def count(self) -> int:
        return 1 + self.offset + self.block

    def columns(self, samples: MeasuredNetworks) -> FloatArray:
        ones = np.ones(len(samples))
        chosen = [samples.sum_ms, *([ones] if self.offset else []), *([samples.blocks] if self.block else [])]
        return np.stack(chosen, 1) / samples.measured_ms[:, None]

    def terms(self, values: FloatArray) -> Coefficients:
        rest = [float(value) for value in values[1:]]
        return Coefficients(float(values[0]), rest.pop(0) if self.offset else 0.0, rest.pop(0) if self.block else 0.0)


_FORMS = (_Form(False, False), _Form(True, False), _Form(False, True), _Form(True, True))


def fit_correction(samples: MeasuredNetworks, smallest: SmallestParts) -> CorrectionFit | None:
    """The correction to use, or None if none is significantly better than the uncorrected sum.

    Relative errors count. A form wins over a simpler one when, network by network left out, its errors are smaller
    on average by more than one and a half times the standard error of that (two and a half times, where the simpler
    one is a correction already), and by 0.1 % at least; it is validated afterwards on networks that no fit has seen.
    Single networks that were disturbed count little (soft-L1 loss). Forms that leave a part less than a tenth of its
    scaled milliseconds do not count.
    """
    best, best_count = Coefficients(), 0
    plain = best_errors = np.abs(Coefficients().predicted_ms(samples) / samples.measured_ms - 1)
    for count in sorted({form.count for form in _FORMS}):
        candidates = list(_candidates(samples, smallest, count))
        if not candidates:
            continue
        terms, errors = min(candidates, key=lambda candidate: float(candidate[1].mean()))
        needed = _STANDARD_ERRORS_OF_MORE if best_count else _STANDARD_ERRORS_OF_ANY
        if _significantly_better(errors, best_errors, needed):
            best, best_errors, best_count = terms, errors, count
    if best_count == 0:
        return None
    return CorrectionFit(best, 100 * float(best_errors.mean()), 100 * float(plain.mean()))


def _candidates(
    samples: MeasuredNetworks, smallest: SmallestParts, count: int
) -> Iterator[tuple[Coefficients, FloatArray]]:
    """Forms of so many numbers: fitted to everything, and the sizes of their errors on each network left out."""
    for form in _FORMS:
        if form.count != count or len(samples) < FEWEST_FITTED * count:
            continue
        columns = form.columns(samples)
        if np.linalg.matrix_rank(columns / np.abs(columns).max(0).clip(min=1e-12), tol=1e-6) < count:
            continue  # such as networks that all have as many blocks: offset and block cannot be told apart
        terms = _fitted(form, samples)
        if terms.keep_positive(smallest):
            predicted = [_fitted(form, samples.without(i)).predicted_ms(samples)[i] for i in range(len(samples))]
            yield terms, np.abs(np.array(predicted) / samples.measured_ms - 1)


def _significantly_better(errors: FloatArray, than: FloatArray, standard_errors: float) -> bool:
    gain = than - errors
    standard_error = float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return bool(gain.mean() > max(_LEAST_GAIN, standard_errors * standard_error))


def _fitted(form: _Form, samples: MeasuredNetworks) -> Coefficients:
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
        noise = _OUTLYING * max(_LEAST_NOISE, _standard_deviation(columns @ values - 1, form.count))
    return form.terms(values / sizes)


def _standard_deviation(misses: FloatArray, count: int) -> float:
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


def smallest_parts(uncorrected: LatencyTable) -> SmallestParts:
    """Those of a table without its correction."""
    contents = uncorrected.contents
    assert contents.classifier is not None  # every table that says how it was measured has one
    stems = sum(part.ms for part in contents.base.values())
    blocks = min(float(curve.dense_ms(contents.classes).min()) for curve in contents.curves.values())
    return SmallestParts(stems + float(contents.classifier.curve.dense_ms().min()), blocks)
