"""A random number: what every other score must beat. The same network and seed always get the same one.

The default is standard normal, as in the ZenNAS program; variant `tinynas` is uniform between 0 and 100. Both
programs draw from a global generator; here the network and the seed decide, so that networks get different numbers
with one seed.
"""

from __future__ import annotations

from random import Random

from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    numbers = Random(f"{scored.fingerprint()} {options.seed}")
    if SCORE.chosen_variant(options.variant) == "tinynas":
        return numbers.uniform(0, 100)
    return numbers.gauss(0, 1)


SCORE = Score(
    name="random",
    higher_is_better=True,
    cost="analytic",
    summary="a random number, the same for the same network and seed",
    variants=("default", "tinynas"),
    measure=measure,
    is_control=True,
)
