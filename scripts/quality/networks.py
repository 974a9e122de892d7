"""Networks of one latency that no search has found: random ones, and the deepest uniform one."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

import tfnas
from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.core.errors import Infeasible, RunFailed
from tfnas.core.mbconv_blocks import Block
from tfnas.core.space import BlockPlace, Operation, SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.searching.differentiable.inherited_evaluation import random_choice, uniform_choice

FloatArray = NDArray[np.float64]

_STRONG = 100.0
_MOST_DRAWS = 50


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What all networks have in common: the space, the table, the target and the number of classes."""

    space: SearchSpace
    table: LatencyTable
    target_ms: float
    num_classes: int

    def no_preference(self) -> Choice:
        """All operations and depths alike."""
        return uniform_choice(self.space, self.num_classes)

    def met(self, choice: Choice) -> Architecture:
        """The network that is preferred most, among those that meet the target."""
        return tfnas.meet_target(choice, self.table, self.target_ms)


class RandomNetworks:
    """Random networks, one after another: operations and depths drawn uniformly, brought to the target.

    What cannot be brought there is not replaced by an arbitrary other draw: `meet_target` takes the nearest, exactly as
    for a search that has learned nothing. No network comes twice.
    """

    def __init__(self, wanted: Wanted, seed: int) -> None:
        self._wanted, self._random = wanted, np.random.default_rng(seed)
        self._seen: set[Architecture] = set()

    def __next__(self) -> Architecture:
        """Raises RunFailed where the band seems to hold no further network."""
        blank = self._wanted.no_preference()
        for _ in range(_MOST_DRAWS):
            found = self._wanted.met(random_choice(blank, self._random))
            if found not in self._seen:
                self._seen.add(found)
                return found
        raise RunFailed(f"{_MOST_DRAWS} draws have given no further network at {self._wanted.target_ms:g} ms")


def deepest_uniform(wanted: Wanted) -> Architecture:
    """All blocks, all of the same operation, all widths at the same share of their range.

    Where several operations can do it, that one whose share is nearest to the middle. Raises Infeasible where none can.
    """
    space, best = wanted.space, None
    deepest = tuple(_only(choices.index(max(choices)), len(choices)) for choices in space.depth_choices)
    for index, operation in enumerate(space.operations):
        share = _fitting_share(wanted, index)
        if share is None:
            continue
        widths = wanted.no_preference().widths.copy()
        widths[:, index] = [_width_at(space, place, operation, share) for place in space.blocks]
        alphas = np.tile(_only(index, len(space.operations)), (len(space.blocks), 1))
        choice = dataclasses.replace(wanted.no_preference(), log_alphas=alphas, log_depths=deepest, widths=widths)
        found = wanted.met(choice)
        kept = [space.operation_index(*pair) for pair in zip(space.blocks, _blocks(found), strict=False)]
        if kept == [index] * len(space.blocks) and (best is None or abs(share - 0.5) < best[0]):
            best = abs(share - 0.5), found
    if best is None:
        raise Infeasible(f"no uniform network of full depth takes {wanted.target_ms:g} ms")
    return best[1]


def _blocks(architecture: Architecture) -> list[Block]:
    return [place.block for place in architecture.blocks]


def _only(index: int, count: int) -> FloatArray:
    """Log-probabilities that leave no doubt."""
    values = np.full(count, -_STRONG)
    values[index] = 0.0
    return values


def _width_at(space: SearchSpace, place: BlockPlace, operation: Operation, share: float) -> int:
    widths = space.widths(place, operation)
    return widths[round(share * (len(widths) - 1))]


def _fitting_share(wanted: Wanted, index: int) -> float | None:
    """The share of the range of widths at which the target is met, None where that is below 0 or above 1."""
    space, operation = wanted.space, wanted.space.operations[index]
    shares = np.linspace(0, 1, 201)
    depths = [max(choices) for choices in space.depth_choices]
    operations = [index] * len(space.blocks)
    total_ms = np.array(
        [
            wanted.table.architecture_ms(
                space.architecture(
                    operations,
                    depths,
                    [_width_at(space, place, operation, share) for place in space.blocks],
                    wanted.num_classes,
                )
            )
            for share in shares
        ]
    )
    if not total_ms.min() <= wanted.target_ms <= total_ms.max():
        return None
    return float(shares[np.abs(total_ms - wanted.target_ms).argmin()])
