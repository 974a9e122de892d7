"""The number of parameters. More is taken for better. Counted, and with the variants, as in `flops.py`."""

from __future__ import annotations

from tfnas.proxies.flops import counts_of
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See `flops.py`."""
    if scored.module is not None and SCORE.chosen_variant(options.variant) == "default":
        from tfnas.nn.counting import num_params

        return num_params(scored.module)
    return counts_of(scored, options, SCORE).params


SCORE = Score(
    name="params",
    higher_is_better=True,
    cost="analytic",
    summary="number of parameters",
    variants=("default", "zennas", "tinynas"),
    measure=measure,
)
