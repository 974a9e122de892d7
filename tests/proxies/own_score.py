"""A score that is no part of the package, in one file: the number of parameters of a freshly built network."""

from __future__ import annotations

from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """More is better."""
    network = scored.network(options, residuals=True)
    return sum(parameter.numel() for parameter in network.parameters())


SCORE = Score(
    name="mine", higher_is_better=True, cost="forward", summary="parameters, counted one by one", measure=measure
)
