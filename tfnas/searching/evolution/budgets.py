"""What an architecture of any family costs, and the first of any number of budgets that it exceeds.

budgets = Budgets(BudgetSettings(max_params=1e6, max_layers=18))
budgets.exceeded(budgets.figures(architecture))        # None, or "params" or "layers"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from tfnas.core.architecture import Architecture
from tfnas.core.cost import COSTS, MILLISECONDS, Cost
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.core.units import FLOAT32_BYTES, peak_activations
from tfnas.latency.structure_table import NotInTable
from tfnas.proxies.unit_entropy import Chain, chain_effectiveness
from tfnas.searching.evolution.budget_settings import BudgetSettings
from tfnas.spaces.families import cost_parts
from tfnas.spaces.mbconv.mbconv_family import architecture_units
from tfnas.spaces.zen.program_counts import program_layers
from tfnas.spaces.zen.structure_figures import structure_figures
from tfnas.spaces.zen.zen_family import StructureArchitecture

FIGURES = {
    "layers": Cost("layers", "layers", "layers"),
    "params": COSTS["params"],
    "macs": COSTS["macs"],
    "ms": MILLISECONDS,
    "memory": Cost("memory", "bytes of activations", "bytes of activations"),
    "effectiveness": Cost("effectiveness", "effectiveness", "depth over width"),
    "feature": Cost("feature", "bytes of features", "bytes of features"),
}
"""Everything that can have a budget, in the order in which budgets are compared."""


class ArchitectureTable(Protocol):
    """A latency table, of whatever family."""

    source: str
    """What messages call it."""

    def architecture_ms(self, architecture: Any) -> float:
        """Milliseconds of a whole network. Raises InputError where the table lacks a part of it."""


class Budgets:
    """The budgets of a search, and the figures that they limit.

    `limits` holds the limits by the names of figures, in the order of comparison. `table` prices architectures; raises
    InputError where latency is limited and there is none.
    """

    def __init__(self, settings: BudgetSettings, table: ArchitectureTable | None = None) -> None:
        self.settings, self.table = settings, table
        self._flags = _limiting_flags(settings)
        self.limits = {name: float(getattr(settings, flag)) for name, flag in self._flags.items()}
        if "ms" in self.limits and table is None:
            raise InputError(f"--{self._flags['ms']} needs a latency table: give --lookup_path FILE")
        self._structures = structure_figures(settings.reference_counts)

    @property
    def names(self) -> tuple[str, ...]:
        """The figures that are limited."""
        return tuple(self.limits)

    def figures(self, architecture: NetworkArchitecture) -> dict[str, float]:
        """`params`, `macs` (of one image) and `layers`; `ms` with a table, infinite where a structure is beyond what
        was measured; of structures and MBConv networks `memory` (bytes) and `effectiveness`; `feature` (bytes) where it
        is limited.

        Raises InputError where a limited figure is not defined for an architecture.
        """
        if isinstance(architecture, StructureArchitecture):
            figures = self._structures.figures(architecture)
            if "feature" in self.limits:
                figures["feature"] = self._structures.peak_feature(architecture)
        else:
            figures = self._figures_of_parts(architecture)
        if self.table is not None:
            try:
                figures["ms"] = self.table.architecture_ms(architecture)
            except NotInTable:  # units larger than any that were measured
                figures["ms"] = math.inf
        return figures

    def too_deep(self, architecture: NetworkArchitecture) -> bool:
        """Whether a structure exceeds the budget of layers, the first of all, which costs no counting of its blocks.

        False says nothing: `exceeded` tells.
        """
        if "layers" not in self.limits or not isinstance(architecture, StructureArchitecture):
            return False
        blocks, notation = architecture.structure.blocks, architecture.structure.notation
        return sum([program_layers(block, notation) for block in blocks]) > self.limits["layers"]

    def exceeded(self, figures: Mapping[str, float]) -> str | None:
        """The first figure that is above its limit, in the order of `FIGURES`; equality passes."""
        for name, limit in self.limits.items():
            if figures[name] > limit:
                return name
        return None

    def excess(self, figures: Mapping[str, float]) -> dict[str, float]:
        """By how much figures are above their limits, relative to these: of those that are, in order."""
        return {name: figures[name] / limit - 1 for name, limit in self.limits.items() if figures[name] > limit}

    def flag(self, name: str) -> str:
        """A limit as the user gives it: `--max_params 1000000`."""
        return f"--{self._flags[name]} {self.limits[name]:.10g}"

    def _figures_of_parts(self, architecture: NetworkArchitecture) -> dict[str, float]:
        if self.settings.reference_counts:
            raise InputError(
                f"--reference_counts counts structures as ZenNAS and TinyNAS do; of family {architecture.family!r} "
                "there are true counts only"
            )
        parts = cost_parts(architecture)
        figures: dict[str, float] = {
            "params": sum(part.counts.params for part in parts),
            "macs": sum(part.counts.macs for part in parts),
            "layers": len(parts) - 1,
        }
        if isinstance(architecture, Architecture):
            units = architecture_units(architecture)
            figures["memory"] = FLOAT32_BYTES * peak_activations(units, architecture.num_classes)
            figures["effectiveness"] = chain_effectiveness(Chain(units))
        for name in ("memory", "effectiveness", "feature"):
            if name in self.limits and name not in figures:
                raise InputError(f"--max_{name} is not defined for networks of family {architecture.family!r}")
        return figures


def _limiting_flags(settings: BudgetSettings) -> dict[str, str]:
    """The setting that limits each figure that has a limit; of two on latency the lower one."""
    flags = {name: ("target_lat", "max_ms") if name == "ms" else (f"max_{name}",) for name in FIGURES}
    given = {name: [flag for flag in names if getattr(settings, flag) is not None] for name, names in flags.items()}
    return {name: min(found, key=lambda flag: float(getattr(settings, flag))) for name, found in given.items() if found}
