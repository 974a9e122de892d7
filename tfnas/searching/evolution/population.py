"""The population of an evolutionary search: distinct networks, of which the best stay."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tfnas.searching.evolution.objective import Objective
from tfnas.spaces.families import cost_parts

REFINED = -1
"""In place of an iteration: the network was not drawn, but has the widths of a drawn one refined."""


@dataclass(slots=True)
class Member:
    """A network in the population.

    `found` is the number of the iteration that drew it, counted from 1 (0: the network that was started from),
    `figures` are what budgets are held against, `value` is what the objective makes of its scores.
    """

    architecture: Any
    found: int
    scores: tuple[float, ...]
    figures: tuple[float, ...]
    value: float = 0.0


def _order(member: Member) -> tuple[float, int]:
    return member.value, member.found


class Population:
    """At most `size` distinct members, the worst first; of equal ones the one that was found first."""

    def __init__(self, size: int, objective: Objective) -> None:
        self.size, self.objective = size, objective
        self.members: list[Member] = []
        self._present: set[Any] = set()

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, architecture: object) -> bool:
        return architecture in self._present

    def add(self, members: Sequence[Member]) -> None:
        """Add members, distinct from each other and from those present, and drop the worst over `size`."""
        if not members:
            return
        self._present.update(member.architecture for member in members)
        if self.objective.by_rank:
            self.members.extend(members)
            self._rank()
        else:
            for member in members:
                member.value = self.objective.total(member.scores)
                insort(self.members, member, key=_order)
        excess = len(self.members) - self.size
        if excess > 0:
            self._present.difference_update([member.architecture for member in self.members[:excess]])
            del self.members[:excess]
            if self.objective.by_rank:  # among those that are left
                self._rank()

    def _rank(self) -> None:
        for member, value in zip(
            self.members, self.objective.values([member.scores for member in self.members]), strict=True
        ):
            member.value = value
        self.members.sort(key=_order)

    @property
    def best(self) -> Member:
        """The best member; of equal ones the one that was found first."""
        return self.members[bisect_left(self.members, self.members[-1].value, key=lambda member: member.value)]

    @property
    def median(self) -> float:
        """The value of the member in the middle."""
        return self.members[len(self.members) // 2].value

    @property
    def best_first(self) -> list[Member]:
        """All members, the best first."""
        return sorted(self.members, key=lambda member: (-member.value, member.found))


_COMPARED = 32


def population_diversity(population: Population) -> float:
    """How different members are: 0 where all parts are the same, 1 where no two networks share a part.

    It is the mean Jaccard distance between the parts (kind and width, see `CostPart`) of two of 32 members that are
    evenly spaced by their value.
    """
    members = population.members
    number = min(_COMPARED, len(members))
    chosen = [members[index * len(members) // number] for index in range(number)]
    parts = [frozenset((part.key, part.width) for part in cost_parts(member.architecture)) for member in chosen]
    distances = [1 - len(one & other) / len(one | other) for one, other in combinations(parts, 2)]
    return sum(distances) / max(1, len(distances))
