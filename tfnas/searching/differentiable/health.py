"""Watching whether the search still learns: collapse onto one operation, stagnation, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfnas.core.choice import Choice

COLLAPSED_SHARE = 0.5
UNIFORM_ENTROPY = 0.98
STILL = 1e-3


def operation_entropy(choice: Choice) -> float:
    """Mean entropy of the blocks' operation probabilities, over that of a uniform choice: 1 undecided, 0 decided."""
    if choice.log_alphas.shape[1] == 1:
        return 0.0
    entropies = -(np.exp(choice.log_alphas) * choice.log_alphas).sum(1)
    return float(entropies.mean() / math.log(choice.log_alphas.shape[1]))


def depth_entropy(choice: Choice) -> float:
    """The same for the depth probabilities of the stages that have a choice; 0 if none has."""
    values = [
        -(np.exp(log_depths) * log_depths).sum() / math.log(len(log_depths))
        for log_depths in choice.log_depths
        if len(log_depths) > 1
    ]
    return float(np.mean(values)) if values else 0.0


def collapsed(choice: Choice) -> str | None:
    """The operation that every block has settled on with a clear majority, by name; None if there is no such one."""
    best = set(choice.best_operations)
    if len(best) > 1 or len(choice.space.operations) == 1 or len(choice.space.blocks) == 1:
        return None
    surest = np.exp(choice.log_alphas.max(1))
    return choice.space.operations[best.pop()].name if surest.min() > COLLAPSED_SHARE else None


def near_chance(top1: float, chance: float) -> bool:
    """Whether an accuracy is less than twice chance, and less than a tenth of the way up from it (all in percent)."""
    return top1 < min(2 * chance, chance + (100 - chance) / 10)  # of two classes, twice chance is all there is


def warnings(choice: Choice, history: Sequence[dict[str, float]]) -> list[str]:
    """What is wrong after an epoch that trained the architecture, in words that say what it means."""
    found = []
    operation = collapsed(choice)
    if operation is not None:
        found.append(
            f"every block has settled on {operation}: the search has collapsed. The supernet favours what trains "
            "fastest; a longer warm-up (--warmup_epochs) or a lower --a_lr helps"
        )
    moves = [entry["alpha_move"] for entry in history if "alpha_move" in entry][-3:]
    if len(moves) == 3 and max(moves) < STILL:
        found.append(
            f"operation probabilities moved by less than {STILL:g} in each of the last three epochs: "
            "the architecture no longer learns. If it is undecided still, raise --a_lr or --epochs"
        )
    return found
