"""What a table counts, and how a person reads it: `15.02 ms`, `300.1 M MACs`, `5.31 M parameters`."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

FLOOR = 0.995
"""The lowest latency that meets a target, relative to the target; the highest is the target itself."""
_LARGEST_PLAIN = 1e4


@dataclass(frozen=True)
class Cost:
    """A kind of cost: its name in files and flags, its unit, and what a target is a number of.

    `target_key` and `table_key` are what files of a run call the target and the table's figure: a number under one
    name is always of one kind.
    """

    name: str
    unit: str
    target_words: str

    @property
    def is_time(self) -> bool:
        """Whether it is milliseconds; the others are whole numbers, counted and not measured."""
        return self.name == "ms"

    @property
    def target_key(self) -> str:
        """`target_ms`, `target_macs`, `target_params`."""
        return f"target_{self.name}"

    @property
    def table_key(self) -> str:
        """`table_ms`, `table_macs`, `table_params`."""
        return f"table_{self.name}"

    def number(self, value: float, digits: int = 4) -> str:
        """A value to so many digits, counts with their power of ten: `15.02`, `300.1 M`."""
        if self.is_time:
            return f"{value:.{digits}g}" if abs(value) < _LARGEST_PLAIN else f"{value:.0f}"
        for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
            if abs(value) >= factor:
                return f"{value / factor:.{digits}g}{letter}"
        return f"{value:.{digits}g}"

    def quantity(self, value: float, digits: int = 4) -> str:
        """The same with the unit: `15.02 ms`, `300.1 M MACs`."""
        return f"{self.number(value, digits)} {self.unit}"

    def as_target(self, value: float) -> str:
        """A value as a flag takes it, never less than it is: milliseconds to seven digits, counts in full."""
        if not self.is_time:
            return f"{value:.0f}"
        return f"{Context(prec=7, rounding=ROUND_CEILING).create_decimal(Decimal(value)).normalize():f}"


MILLISECONDS = Cost("ms", "ms", "milliseconds")
COSTS = {
    cost.name: cost
    for cost in (
        MILLISECONDS,
        Cost("macs", "MACs", "multiply-accumulates"),
        Cost("params", "parameters", "parameters"),
    )
}
"""The kinds of cost by name."""

COUNTED = tuple(name for name, cost in COSTS.items() if not cost.is_time)
"""Those that are counted and not measured."""
