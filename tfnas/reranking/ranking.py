"""Ranks, and several of them combined into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def ranks(values: Sequence[float], higher_is_better: bool) -> FloatArray:
    """1 for the best of the values [n]; equal values share the mean of their places."""
    signed = np.asarray(values, dtype=np.float64) * (-1 if higher_is_better else 1)
    # as scipy.stats.rankdata, whose import takes longer than the rest of a small re-ranking
    _, places, counts = np.unique(signed, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places], dtype=np.float64)


def log_rank_sums(rankings: Sequence[FloatArray]) -> FloatArray:
    """Sums of the logarithms of ranks, [n] of each of the rankings; the smallest is the best (AZ-NAS, CVPR 2024).

    The logarithm makes it matter more to be second rather than tenth than to be fortieth rather than forty-eighth.
    """
    return np.asarray(np.sum(np.log(np.stack(rankings)), axis=0), dtype=np.float64)


def combined_order(rankings: Sequence[FloatArray]) -> list[int]:
    """Indices from best to worst; among equal sums, the order that they have (the derived architecture is first)."""
    sums = np.round(log_rank_sums(rankings), 9)  # the same ranks in another order add up to the same
    return [int(index) for index in np.argsort(sums, kind="stable")]
