"""Several scores of a set of networks as one number each, by ranks within the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tfnas.core.errors import InputError


def combine_ranks(terms: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    """One number for each of m networks, higher for better, from `terms`: m numbers by name, higher for better.

    It is the sum over terms of ln(r / m), r being the rank among the networks, from 1 for the worst to m for the best;
    equal numbers share the mean of their ranks. A network that is last in one term loses more than it can gain by being
    first in another. It is 0 for a network that is alone the best in every term, and holds within this set only: with
    one more network all change. Source: AZ-NAS (CVPR 2024, arXiv 2403.19232), which combines its four scores so.

    Infinite numbers have ranks like others. Raises InputError for no terms, for terms of different lengths, and for a
    number that is none (nan).
    """
    if not terms:
        raise InputError("no terms to combine: give one or more, each with a number of every network")
    from scipy.stats import rankdata  # takes a second to load

    columns = {name: np.asarray(values, dtype=np.float64) for name, values in terms.items()}
    first, count = next(iter(columns)), len(next(iter(columns.values())))
    combined = np.zeros(count)
    for name, values in columns.items():
        if values.shape != (count,):
            raise InputError(f"term {name} has {values.size} numbers, {first} has {count}: give one of every network")
        if np.isnan(values).any():
            raise InputError(f"term {name} has no number (nan) for network {int(np.isnan(values).argmax())}")
        combined += np.log(rankdata(values) / count)
    return combined
