"""The parts that a data set divides into, before any transform is put on them.

Fixed stratified splits: the same images go to the same part in every run, whatever its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfnas.core.errors import InputError
from tfnas.data.images import Source


@dataclass(frozen=True)
class Parts:
    """Raw images for training weights, for training the architecture, and (where there are any) for the final test."""

    weights: Source
    architecture: Source
    test: Source | None
    class_names: tuple[str, ...]


_SPLIT_SEED = 20200824  # arbitrary but fixed: changing it changes every split ever made


def stratified_split(
    labels: Sequence[int], share: float, class_names: Sequence[str], where: str
) -> tuple[list[int], list[int]]:
    """Divide images into the rest and a `share` of every class, at least one image each, both in rising order.

    Args:
        labels: The label of every image, 0 .. len(class_names) - 1.
        share: Share of each class for the second part, between 0 and 1.
        class_names: The name of every label, for messages.
        where: What is split, for messages.

    Returns:
        Indices of the rest and indices of the share.

    Raises:
        InputError: A class has fewer than two images.
    """
    # RandomState, since its stream is frozen for all versions of numpy.
    random = np.random.RandomState(_SPLIT_SEED)
    rest: list[int] = []
    shared: list[int] = []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(np.asarray(labels) == label)
        if len(members) < 2:
            raise InputError(
                f"{where}: class {name!r} has {len(members)} image(s); a split into weight and architecture "
                "parts needs at least 2 of every class. Add images or remove the class."
            )
        random.shuffle(members)
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        shared.extend(members[:count].tolist())
        rest.extend(members[count:].tolist())
    return sorted(rest), sorted(shared)
