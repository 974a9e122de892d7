"""What a search has learned: log-probabilities of operations and depths, and the width of every operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace


@dataclass(frozen=True, eq=False)
class Choice:
    """Preferences over the architectures of a space; `derived` is the one preferred most (the spec's "Deriving").

    `log_alphas` [blocks, operations] are log-probabilities; `log_depths` holds per stage one log-probability for each
    of `space.depth_choices`; `widths` [blocks, operations] are whole numbers of channels.
    Raises InputError for a wrong shape, a value that is not finite, or a width outside its range.
    """

    space: SearchSpace
    num_classes: int
    log_alphas: NDArray[np.float64]
    log_depths: tuple[NDArray[np.float64], ...]
    widths: NDArray[np.int64]

    def __post_init__(self) -> None:
        grid = (len(self.space.blocks), len(self.space.operations))
        _check_numbers("log_alphas", self.log_alphas, grid)
        _check_numbers("widths", self.widths, grid)
        if len(self.log_depths) != len(self.space.stages):
            raise InputError(f"log_depths must hold {len(self.space.stages)} stages, got {len(self.log_depths)}")
        for stage, (values, depths) in enumerate(zip(self.log_depths, self.space.depth_choices, strict=True), 1):
            _check_numbers(f"log_depths of stage {stage}", values, (len(depths),))
        self._check_widths()

    def _check_widths(self) -> None:
        for place, widths in zip(self.space.blocks, self.widths, strict=True):
            for operation, width in zip(self.space.operations, widths, strict=True):
                allowed = self.space.widths(place, operation)
                if width not in allowed:
                    number = "whole number" if allowed.step == 1 else f"multiple of {allowed.step}"
                    raise InputError(
                        f"the width of {operation.name} in {place.name} must be a {number} "
                        f"from {allowed[0]} to {allowed[-1]}, got {width}"
                    )

    @property
    def best_operations(self) -> tuple[int, ...]:
        """Per block, the index of the operation with the largest log_alpha."""
        return tuple(int(index) for index in self.log_alphas.argmax(axis=1))

    @property
    def best_depths(self) -> tuple[int, ...]:
        """Per stage, the most probable number of blocks."""
        pairs = zip(self.space.depth_choices, self.log_depths, strict=True)
        return tuple(depths[int(values.argmax())] for depths, values in pairs)

    def derived(self) -> Architecture:
        """The most probable operation of each block and depth of each stage, at the current widths."""
        return self.architecture(self.best_operations, self.best_depths)

    def architecture(self, operations: Sequence[int], depths: Sequence[int]) -> Architecture:
        """The architecture of an operation index per block and a depth per stage, at the current widths."""
        widths = [int(row[operation]) for row, operation in zip(self.widths, operations, strict=True)]
        return self.space.architecture(operations, depths, widths, self.num_classes)

    def score(self, operations: Sequence[int], depths: Sequence[int]) -> float:
        """How much less preferred than the derived choice: 0 for that, negative for others.

        The sum over kept blocks of (log_alpha - the block's largest) plus the sum over stages of
        (log depth-probability - the stage's largest), so that dropping blocks earns nothing.
        """
        losses, depth_losses = self.operation_scores, self.depth_scores
        total = 0.0
        for index, place in enumerate(self.space.blocks):
            if place.position < depths[place.stage]:
                total += float(losses[index, operations[index]])
        for stage, choices in enumerate(self.space.depth_choices):
            total += float(depth_losses[stage][choices.index(depths[stage])])
        return total

    @property
    def operation_scores(self) -> NDArray[np.float64]:
        """What each operation of each block [blocks, operations] adds to the score, when the block is kept."""
        largest: NDArray[np.float64] = self.log_alphas.max(axis=1, keepdims=True)
        return self.log_alphas - largest

    @property
    def depth_scores(self) -> tuple[NDArray[np.float64], ...]:
        """What each depth of each stage adds to the score."""
        return tuple(values - values.max() for values in self.log_depths)


def _check_numbers(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise InputError(f"{name} must have the shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite numbers, got {values}")
