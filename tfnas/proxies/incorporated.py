"""Incorporated-Score: Zen-Score and normalised entropy together.

    logarithm (default)   score = wz Zen + we ln E
    square_root           score = wz Zen + we sqrt(E)

Zen is `zen.py`, E the entropy of `entropy.py` with all stage weights 1, less the depth penalty; weights wz, we =
0.9, 0.1 (`incorporated_weights`; PUBLISHED_WEIGHTS has those of the published searches). E may be negative for very
unequal depths: the score then fails. Source: Electronics 2024, 13(16), 3325.

Variants `incorporated_l` and `incorporated_s` are what the program Incorporated-NAS computes in the two cases: Zen
of variant `zennas`, sizes rounded down, and the depths of the first residual blocks left out as in variant
`tinynas` of `entropy`. `incorporated_without` is its ablation without normalisation and weights, Zen + E. Its
searches also refuse networks with `effectiveness` above 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tfnas.proxies.entropy import counted_depths, weighted_entropy
from tfnas.proxies.score import Score, ScoreFailed
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import unequal_depth_penalty, unit_entropies
from tfnas.proxies.zen import zen_score

PUBLISHED_WEIGHTS = {"imagenet": (0.9, 0.1), "cifar": (0.5, 0.01)}
_NORMALISATIONS: dict[str, Callable[[float], float]] = {
    "logarithm": math.log,
    "incorporated_l": math.log,
    "square_root": math.sqrt,
    "incorporated_s": math.sqrt,
}


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    variant = SCORE.chosen_variant(options.variant)
    as_program = variant.startswith("incorporated")
    entropy = penalised_entropy(scored, options, as_program=as_program)
    if entropy <= 0 and variant in _NORMALISATIONS:
        raise ScoreFailed(
            f"score {SCORE.name} of {scored.text} has no value: its entropy is {entropy:.4g} after the penalty on "
            "unequal depths",
            scored.text,
        )
    zen = zen_score(scored, options, as_program=as_program)
    return combined(zen, entropy, variant, options.incorporated_weights)


def combined(zen: float, entropy: float, variant: str, weights: tuple[float, float]) -> float:
    """The score of a Zen-Score and an entropy above 0."""
    if variant not in _NORMALISATIONS:
        return zen + entropy
    return weights[0] * zen + weights[1] * _NORMALISATIONS[variant](entropy)


def penalised_entropy(scored: ScoredNetwork, options: ScoreOptions, *, as_program: bool) -> float:
    """E: the entropy of all stages, each with weight 1, less the depth penalty."""
    chain = scored.chain(options, SCORE.name, floor=as_program)
    weights = (1.0,) * len(chain.stages)
    raw = weighted_entropy(chain, weights, [stage.resolution for stage in chain.stages], unit_entropies(chain))
    return raw - unequal_depth_penalty(counted_depths(chain) if as_program else chain.depths, options.depth_penalty)


SCORE = Score(
    name="incorporated",
    higher_is_better=True,
    cost="forward",
    summary="Zen-Score and normalised entropy (Incorporated-NAS, Electronics 2024)",
    variants=("logarithm", "square_root", "incorporated_l", "incorporated_s", "incorporated_without"),
    measure=measure,
)
