"""What a zero-shot score is, and how one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tfnas.errors import InputError, RunFailed

if TYPE_CHECKING:
    from tfnas.zeroshot.options import ScoreOptions
    from tfnas.zeroshot.subject import Subject

Cost = Literal["analytic", "forward", "gradient"]


@dataclass(frozen=True)
class Score:
    """A number that an untrained network gets. Each stands in a file of its own; `registry.py` lists them."""

    name: str
    """What it is asked for by."""
    higher_is_better: bool
    """Whether a higher number stands for a better network."""
    cost: Cost
    """`analytic`: closed form, no network is built; `forward`: passes forward; `gradient`: passes backward too."""
    needs: frozenset[str]
    """Of `images`, `labels`, `gradient`: what it computes with. Noise takes the place of data that is not given."""
    summary: str
    """One line: what it measures, and its source."""
    variants: tuple[str, ...]
    """Definitions that it has: the first is the default, the others are what a published program computes."""
    measure: Callable[[Subject, ScoreOptions], float]
    """The number of a subject; raises InputError where the network cannot support the score."""
    is_control: bool = False
    """Whether it says nothing of a network, and is there to be beaten: nothing may be ranked by it."""

    def __post_init__(self) -> None:
        unknown = self.needs - {"images", "labels", "gradient"}
        if unknown or not self.variants:
            raise ValueError(f"score {self.name}: needs {sorted(unknown)} unknown, or no variant")

    def chosen_variant(self, variant: str | None) -> str:
        """The variant of that name, the default for None. Raises InputError that lists the known ones."""
        if variant is None:
            return self.variants[0]
        if variant not in self.variants:
            raise InputError(f"score {self.name} has no variant {variant!r}: give one of {', '.join(self.variants)}")
        return variant


class ScoreFailed(RunFailed):
    """A score came out not finite, or could not be computed. `architecture` is the text of the network."""

    def __init__(self, message: str, architecture: str) -> None:
        super().__init__(message)
        self.architecture = architecture

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.architecture)  # so that it arrives whole from another process
