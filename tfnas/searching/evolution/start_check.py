"""Whether a search can start: is the network to start from within the budgets, and if not, is anything?

What a space can reach is estimated by walking down from the network to start from with the family's own mutations: of
each child the walk keeps what is no worse. It is deterministic and takes seconds at most.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np

from tfnas.core.errors import Infeasible, InputError
from tfnas.core.family import Family
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import check_target
from tfnas.searching.evolution.budgets import FIGURES, Budgets
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.zen_family import StructureArchitecture

_PATIENCE = 500
"""Children in a row without progress after which a walk ends."""
_MOST_CHILDREN = 20_000
_WALKS = 4
"""Of structures, where a block that was split stays split. Children of other families take far longer to draw."""

_Figures = dict[str, float]


def check_start(budgets: Budgets, family: Family, start: Any) -> None:
    """Raise InputError where the network to start from is over budget, naming one that is not.

    Raises Infeasible where none was found: with each budget that alone is out of reach and the smallest value reached,
    or with what is left over the budgets together; and for a target latency outside what a space of MBConv blocks
    reaches.
    """
    target_ms = budgets.settings.target_lat
    if target_ms is not None and isinstance(family, MBConvFamily) and isinstance(budgets.table, LatencyTable):
        check_target(family.space, budgets.table, target_ms, family.num_classes)
    if budgets.table is not None:
        budgets.table.architecture_ms(start)  # raises where the table has nothing like a unit of it
    figures = budgets.figures(start)
    over = budgets.excess(figures)
    if not over:
        return
    nearest, found = _lowest(family, start, budgets, lambda reached: sum(budgets.excess(reached).values()), 0.0)
    left = budgets.excess(found)
    if not left:
        amounts = "; ".join(
            f"it has {FIGURES[name].quantity(figures[name])}, {share:.1%} above {budgets.flag(name)}"
            for name, share in over.items()
        )
        raise InputError(
            f"the network to start from is over budget: {amounts}. Raise the budget, or start from a network within "
            f"it, such as --init {nearest.to_text()!r}"
        )
    impossible = []
    for name in left:
        smallest = _lowest(family, start, budgets, itemgetter(name), budgets.limits[name])[1]
        if smallest[name] > budgets.limits[name]:
            quantity = FIGURES[name].quantity(smallest[name])
            impossible.append(f"{budgets.flag(name)} is below the {quantity} of the smallest network found")
    if impossible:
        raise Infeasible(f"no network of the space is within the budgets: {'; '.join(impossible)}. Raise the budget")
    amounts = "; ".join(f"{FIGURES[name].quantity(found[name])} of {budgets.flag(name)}" for name in left)
    raise Infeasible(
        f"no network of the space was found that is within all budgets together: the nearest still has {amounts}. "
        "Raise one of the budgets"
    )


def _lowest(
    family: Family, start: Any, budgets: Budgets, objective: Callable[[_Figures], float], goal: float
) -> tuple[Any, _Figures]:
    """The network of the lowest objective, and its figures, that one of several walks ends at, or the first within the
    goal."""
    best = start, budgets.figures(start)
    for seed in range(_WALKS if isinstance(start, StructureArchitecture) else 1):
        found = _walk(family, start, budgets, objective, goal, seed)
        if objective(found[1]) < objective(best[1]):
            best = found
        if objective(best[1]) <= goal:
            break
    return best


def _walk(
    family: Family, start: Any, budgets: Budgets, objective: Callable[[_Figures], float], goal: float, seed: int
) -> tuple[Any, _Figures]:
    """Walk by mutations to a low value of an objective, until it is at most the goal; the network and its figures."""
    generator = np.random.default_rng(seed)
    here, figures = start, budgets.figures(start)
    value, idle = objective(figures), 0
    for _ in range(_MOST_CHILDREN):
        if value <= goal or idle >= _PATIENCE:
            break
        child = family.mutate(here, generator)
        reached = budgets.figures(child)
        idle += 1
        # Of children that are no better the smaller ones are followed, so that a walk along a plateau goes down, too.
        if (objective(reached), reached["macs"]) <= (value, figures["macs"]):
            if objective(reached) < value:
                idle = 0
            here, figures, value = child, reached, objective(reached)
    return here, figures
