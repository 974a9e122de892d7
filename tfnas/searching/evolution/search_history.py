"""What became of every network that an evolutionary search has drawn, as arrays that grow, and as one file.

`history.npz` has an entry per iteration: `outcome` (a number, named in `outcomes`), `scores` (iterations, score_names)
and `figures` (iterations, figure_names), NaN where they were not computed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tfnas.runs.run_directory import State

HISTORY_FILE = "history.npz"
JOINED, DUPLICATE, NO_SCORE = 0, 1, 2
_COMMON = ("joined", "duplicate", "no_score")
_FIRST = 1024


@dataclass
class HistoryRows:
    """Iterations that are not in the history yet; scores and figures that were not computed are empty."""

    outcomes: list[int] = field(default_factory=list)
    scores: list[tuple[float, ...]] = field(default_factory=list)
    figures: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, outcome: int, figures: tuple[float, ...] = ()) -> None:
        """Add an iteration, whose scores are not computed yet."""
        self.outcomes.append(outcome)
        self.scores.append(())
        self.figures.append(figures)


class SearchHistory:
    """The outcomes of all iterations so far.

    `budgets` are the names of the budgets that may be exceeded; those of scores and figures name columns.
    """

    def __init__(self, score_names: Sequence[str], figure_names: Sequence[str], budgets: Sequence[str]) -> None:
        self.score_names, self.figure_names = tuple(score_names), tuple(figure_names)
        self.outcomes = (*_COMMON, *(f"over_{name}" for name in budgets))
        self._codes = {name: len(_COMMON) + number for number, name in enumerate(budgets)}
        self.length = 0
        self._outcome = np.empty(_FIRST, np.uint8)
        self._numbers = np.empty((_FIRST, len(self.score_names) + len(self.figure_names)))

    def code(self, budget: str) -> int:
        """The outcome of a network that exceeds a budget."""
        return self._codes[budget]

    def extend(self, rows: HistoryRows) -> None:
        """Add iterations."""
        end = self.length + len(rows.outcomes)
        if end > len(self._outcome):
            self._grow(max(end, 2 * len(self._outcome)))
        self._outcome[self.length : end] = rows.outcomes
        no_scores, no_figures = (math.nan,) * len(self.score_names), (math.nan,) * len(self.figure_names)
        self._numbers[self.length : end] = [
            (*(scores or no_scores), *(figures or no_figures))
            for scores, figures in zip(rows.scores, rows.figures, strict=True)
        ]
        self.length = end

    def _grow(self, length: int) -> None:
        for name in ("_outcome", "_numbers"):
            old = getattr(self, name)
            new = np.empty((length, *old.shape[1:]), old.dtype)
            new[: self.length] = old[: self.length]
            setattr(self, name, new)

    @property
    def outcome(self) -> NDArray[np.uint8]:
        """The outcome of every iteration."""
        return self._outcome[: self.length]

    @property
    def scores(self) -> NDArray[np.float64]:
        """(iterations, scores)."""
        return self._numbers[: self.length, : len(self.score_names)]

    @property
    def figures(self) -> NDArray[np.float64]:
        """(iterations, figures)."""
        return self._numbers[: self.length, len(self.score_names) :]

    def counts(self) -> Iterator[tuple[str, int]]:
        """Of every outcome, its name and how often it came."""
        counted = np.bincount(self.outcome, minlength=len(self.outcomes))
        yield from zip(self.outcomes, counted.tolist(), strict=True)

    def to_file(self) -> bytes:
        """The contents of `history.npz`."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            outcome=self.outcome,
            outcomes=np.array(self.outcomes),
            scores=self.scores,
            score_names=np.array(self.score_names),
            figures=self.figures,
            figure_names=np.array(self.figure_names),
        )
        return buffer.getvalue()

    def state(self) -> State:
        """For a checkpoint, without a copy: to be saved before the next iteration."""
        return {"outcome": torch.from_numpy(self.outcome), "numbers": torch.from_numpy(self._numbers[: self.length])}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore `state`."""
        self._outcome, self._numbers = state["outcome"].numpy().copy(), state["numbers"].numpy().copy()
        self.length = len(self._outcome)
