"""The last step of a search for a latency: widths moved by single steps until the network takes 99.5 to 100 % of it.

All other budgets are kept. Widths first grow in even proportion, one step at a time; where every further step exceeds a
budget, steps up and down are combined. Latency is not assumed to grow with width.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.errors import Infeasible, InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.reachable import Band
from tfnas.latency.widths import at_widths, block_widths, fit_channels
from tfnas.searching.evolution.budgets import FIGURES, Budgets
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.super_block import SuperBlock
from tfnas.spaces.zen.zen_family import StructureArchitecture

_STEP = 8
"""Channels by which widths of structures move."""
_LARGEST_WIDTH = 2048
_MOST_NETWORKS = 16
"""Networks that are tried, each of which may take seconds."""
_STEPS = (-2, -1, 1, 2)
"""Steps of one width that are combined with steps of others."""
_LEAST_PROGRESS = 0.02
"""Share of what is missing that a round of combined moves must gain, or it is the last."""
_MOST_COUNTED = 200
"""Combinations that are counted in a round: those that promise to come nearest to the middle of the band."""

FloatArray = NDArray[np.float64]
_Figures = dict[str, float]


class _Widths(Protocol):
    """The widths of a network that may move, and where to."""

    start: tuple[int, ...]
    ranges: list[range]

    def at(self, widths: Sequence[int]) -> Any:
        """The network with other widths. Raises InputError where it cannot have them."""


class _StructureWidths:
    """Outputs and bottlenecks of residual super-blocks. Convolutions alone, at both ends mostly, stay."""

    def __init__(self, architecture: StructureArchitecture) -> None:
        self._architecture = architecture
        blocks = architecture.structure.blocks
        self._places = [
            (number, name)
            for number, block in enumerate(blocks)
            if block.bottleneck is not None
            for name in ("out_channels", "bottleneck")
        ]
        self.start = tuple(getattr(blocks[number], name) for number, name in self._places)
        self.ranges = [range(_smallest(width), max(_LARGEST_WIDTH, width) + 1, _STEP) for width in self.start]

    def at(self, widths: Sequence[int]) -> StructureArchitecture:
        """See `_Widths`."""
        blocks = list(self._architecture.structure.blocks)
        for (number, name), width in zip(self._places, widths, strict=True):
            if getattr(blocks[number], name) != width:
                blocks[number] = _with(blocks[number], name, width)
        for number in range(1, len(blocks)):
            if blocks[number].in_channels != blocks[number - 1].out_channels:
                blocks[number] = _with(blocks[number], "in_channels", blocks[number - 1].out_channels)
        structure = Structure(tuple(blocks), self._architecture.structure.notation)
        return dataclasses.replace(self._architecture, structure=structure)


class _BlockWidths:
    """The widths of MBConv blocks, in the range of each."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self.start = tuple(int(width) for width in block_widths(architecture))
        self.ranges = [place.block.widths for place in architecture.blocks]

    def at(self, widths: Sequence[int]) -> Architecture:
        """See `_Widths`."""
        return at_widths(self._architecture, np.array(widths, dtype=np.int64))


def refine_to_target(networks: Iterable[NetworkArchitecture], budgets: Budgets) -> Any:
    """The first of at most 16 networks, best first and within all budgets, whose widths can be moved so that it takes
    99.5 to 100 % of the target latency and stays within the budgets; with these widths. Deterministic.

    Raises Infeasible that says how near the best network came, and what keeps it there.
    """
    reason = "there is no network to start from"
    for number, network in enumerate(itertools.islice(networks, _MOST_NETWORKS)):
        found, why = _refined(network, budgets)
        if found is not None:
            return found
        reason = why if number == 0 else reason
    raise Infeasible(reason)


def _refined(network: NetworkArchitecture, budgets: Budgets) -> tuple[Any, str]:
    """The network at other widths, or None and the reason."""
    assert budgets.settings.target_lat is not None
    band = Band.of(budgets.settings.target_lat)
    here_ms = budgets.figures(network)["ms"]
    if band.holds(here_ms):
        return network, ""
    widths: _Widths
    if isinstance(network, Architecture):
        widths = _BlockWidths(network)
        fitted = fit_channels(network, budgets.table, band) if isinstance(budgets.table, LatencyTable) else None
        if fitted is not None and budgets.exceeded(budgets.figures(fitted)) is None:
            return fitted, ""
    elif isinstance(network, StructureArchitecture):
        widths = _StructureWidths(network)
    else:
        return None, (
            f"the best network takes {FIGURES['ms'].quantity(here_ms)}, less than 99.5 % of the target, and networks "
            f"of family {network.family!r} have no widths that could be refined: use --max_ms"
        )
    search = _WidthSearch(widths, budgets, band)
    found = search.grown() or search.combined()
    return (None, search.reason()) if found is None else (widths.at(found), "")


class _WidthSearch:
    """Looks for widths in the band; `widths` are the slowest so far that are within all budgets."""

    def __init__(self, ranges: _Widths, budgets: Budgets, band: Band) -> None:
        self._ranges, self._budgets, self._band = ranges, budgets, band
        self._names = tuple(budgets.limits)
        self._limits = np.array(list(budgets.limits.values()))
        self.widths = ranges.start
        self.figures = budgets.figures(ranges.at(ranges.start))

    def grown(self) -> tuple[int, ...] | None:
        """Widths in the band on a way up in even proportion; a width whose next step exceeds a budget stays."""
        start, free = self._ranges.start, set(range(len(self._ranges.start)))
        while free and not self._band.holds(self.figures["ms"]):
            index = min(free, key=lambda number: (self._moved(self.widths, number, 1)[number] / start[number], number))
            moved = self._moved(self.widths, index, 1)
            figures = self._counted(moved)
            if figures is None or self._budgets.exceeded(figures) is not None:
                free.discard(index)
            else:
                self.widths, self.figures = moved, figures
        return self.widths if self._band.holds(self.figures["ms"]) else None

    def combined(self) -> tuple[int, ...] | None:
        """Widths in the band by combinations of up to three moves, again and again while they come nearer."""
        while True:
            best, least_ms = None, self.figures["ms"] + _LEAST_PROGRESS * (self._band.low_ms - self.figures["ms"])
            for widths in self._promising():
                figures = self._counted(widths)
                if figures is not None and self._budgets.exceeded(figures) is None:
                    if best is None or figures["ms"] > best[1]["ms"]:
                        best = widths, figures
                    if self._band.holds(figures["ms"]):
                        break
            if best is None or best[1]["ms"] < least_ms:
                return None
            self.widths, self.figures = best
            if self._band.holds(self.figures["ms"]):
                return self.widths

    def reason(self) -> str:
        """Why nothing is in the band, as far as single steps tell."""
        quantity = FIGURES["ms"].quantity
        over: set[str] = set()
        for index in range(len(self.widths)):
            figures = self._counted(self._moved(self.widths, index, 1))
            over.update(() if figures is None else self._budgets.excess(figures))
        others = [self._budgets.flag(name) for name in self._names if name in over and name != "ms"]
        if others:
            why = f"wider networks exceed {' and '.join(others)}"
        elif over:
            why = "the next widths pass over it"
        else:
            why = "its widths are as large as they may be"
        return (
            f"no widths of the best networks were found that take {quantity(self._band.low_ms)} to "
            f"{quantity(self._band.high_ms)}: the best one reaches {quantity(self.figures['ms'])}, and {why}. Choose "
            "another target, or use --max_ms, which the result need not come near"
        )

    def _promising(self) -> list[tuple[int, ...]]:
        """Widths by combined moves, those first that should come nearest to the middle of the band.

        What a combination costs is estimated as the sum over its moves.
        """
        moves = [(index, steps) for index in range(len(self.widths)) for steps in _STEPS]
        counted = [(move, self._counted(self._moved(self.widths, *move))) for move in moves]
        known = [(move, figures) for move, figures in counted if figures is not None]
        if not known:
            return []
        base = self._row(self.figures)
        gains = np.array([self._row(figures) - base for _, figures in known])
        indices = np.array([move[0] for move, _ in known])
        singles = np.arange(len(known))[:, None]
        first, second = np.triu_indices(len(known), 1)
        pairs = np.stack([first, second], axis=1)[indices[first] != indices[second]]
        pairs = pairs[self._nearest(base + gains[pairs].sum(axis=1))]
        triples = np.concatenate([np.repeat(pairs, len(known), axis=0), np.tile(singles, (len(pairs), 1))], axis=1)
        triples = triples[(indices[triples[:, :2]] != indices[triples[:, 2:]]).all(axis=1)]
        combinations: list[tuple[int, ...]] = []
        for rows in (singles, pairs, triples):
            if len(rows):
                near = rows[self._nearest(base + gains[rows].sum(axis=1))]
                combinations += [tuple(int(place) for place in row) for row in near]
        found = []
        for places in combinations:
            widths = self.widths
            for place in places:
                widths = self._moved(widths, *known[place][0])
            found.append(widths)
        return found

    def _nearest(self, estimates: FloatArray) -> NDArray[np.int64]:
        """Of estimated figures [rows, names] those within the budgets, nearest to the middle of the band first."""
        within = np.flatnonzero((estimates <= self._limits).all(axis=1))
        distance = np.abs(estimates[within, self._names.index("ms")] - (self._band.low_ms + self._band.high_ms) / 2)
        return within[np.argsort(distance, kind="stable")[:_MOST_COUNTED]]

    def _row(self, figures: _Figures) -> FloatArray:
        return np.array([figures[name] for name in self._names])

    def _moved(self, widths: tuple[int, ...], index: int, steps: int) -> tuple[int, ...]:
        return (*widths[:index], widths[index] + steps * self._ranges.ranges[index].step, *widths[index + 1 :])

    def _counted(self, widths: tuple[int, ...]) -> _Figures | None:
        """The figures at other widths; None where a network cannot have them."""
        if any(width not in allowed for width, allowed in zip(widths, self._ranges.ranges, strict=True)):
            return None
        try:
            figures = self._budgets.figures(self._ranges.at(widths))
        except InputError:  # groups that do not divide channels
            return None
        return figures if math.isfinite(figures["ms"]) else None


def _smallest(width: int) -> int:
    """The narrowest width that whole steps lead to from a width."""
    return (width - 1) % _STEP + 1


def _with(block: SuperBlock, name: str, width: int) -> SuperBlock:
    fields: dict[str, Any] = {name: width}
    return dataclasses.replace(block, **fields)
