"""Fitting what a sum of blocks misses: network = scale * sum of parts + offset_ms + block_ms for every block.

A few noisy networks do not carry three free numbers. So the simplest form is taken that foretells networks which were
left out of its fit clearly better than simpler ones do; often that is the scale alone, or nothing at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from tfnas.latency.contents import SumErrors

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
