"""What an evolutionary search maximises: a score, a weighted sum of scores, or a combination of their ranks.

    Objective.parse("0.9*zen + 0.1*entropy")

Every score counts such that higher is better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfnas.core.errors import InputError
from tfnas.proxies.rank_combination import combine_ranks
from tfnas.proxies.score import Score, find_score

_PLUS = re.compile(r"(?<!\d[eE])\+")
_TERM = re.compile(r"\s*(?:(?P<weight>[^*]*)\*)?\s*(?P<name>[\w-]+)\s*(?::\s*(?P<variant>[\w-]+)\s*)?", re.ASCII)


@dataclass(frozen=True)
class ScoreTerm:
    """A score, its variant (None: its default) and its factor in a sum."""

    score: Score
    variant: str | None = None
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The score's name, and its variant if one is named."""
        return self.score.name if self.variant is None else f"{self.score.name}:{self.variant}"

    @property
    def sign(self) -> int:
        """-1 where lower is better."""
        return 1 if self.score.higher_is_better else -1


@dataclass(frozen=True)
class Objective:
    """One number for every member of a population, from the scores of all."""

    terms: tuple[ScoreTerm, ...]
    by_rank: bool = False

    @classmethod
    def parse(cls, text: str, by_rank: bool = False) -> Objective:
        """Read `zen`, `entropy:tinynas`, `0.9*zen + 0.1*entropy`.

        Raises InputError for what is malformed, a score or variant that does not exist, and one that is named twice.
        """
        terms = tuple(_term(part, text) for part in _PLUS.split(text))
        names = [term.name for term in terms]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"--score names {twice} twice: {text!r}")
        if by_rank and len(terms) == 1:
            raise InputError(f"--combine rank is for several scores, such as {terms[0].name}+params")
        if by_rank and any(term.weight != 1 for term in terms):
            raise InputError(f"--combine rank takes scores without factors, got --score {text!r}")
        return cls(terms, by_rank)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scores, in the order of their values."""
        return tuple(term.name for term in self.terms)

    @property
    def is_analytic(self) -> bool:
        """Whether all scores are closed forms."""
        return all(term.score.cost == "analytic" for term in self.terms)

    def total(self, scores: Sequence[float]) -> float:
        """The weighted sum of a network's scores."""
        return sum([term.weight * term.sign * value for term, value in zip(self.terms, scores, strict=True)])

    def values(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """Of each of several networks, by their scores (networks, terms): the sum, or the ranks' combination."""
        if not self.by_rank:
            return [self.total(row) for row in scores]
        columns = zip(*scores, strict=True)
        signed = {
            term.name: [term.sign * value for value in column] for term, column in zip(self.terms, columns, strict=True)
        }
        combined: list[float] = combine_ranks(signed).tolist()
        return combined

    def shown(self, value: float) -> float:
        """A value as people know it: of a lone score where lower is better, the score itself."""
        return value * self.terms[0].sign if len(self.terms) == 1 else value

    def __str__(self) -> str:
        if self.by_rank:
            return f"the ranks of {', '.join(self.names)} in the population"
        return " + ".join((f"{term.weight:g} " if term.weight != 1 else "") + term.name for term in self.terms)


def _term(part: str, text: str) -> ScoreTerm:
    found = _TERM.fullmatch(part)
    if found is None:
        raise InputError(f"--score must be a score or a sum such as 0.9*zen+0.1*entropy, got {text!r}")
    weight = 1.0
    if found["weight"] is not None:
        try:
            weight = float(found["weight"])
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise InputError(f"--score {text!r}: the factor of {found['name']} must be a number above 0")
    try:
        score = find_score(found["name"])
        if found["variant"] is not None:
            score.chosen_variant(found["variant"])
    except InputError as error:
        raise InputError(f"--score: {error}") from error
    return ScoreTerm(score, found["variant"], weight)
