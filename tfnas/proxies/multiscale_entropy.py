"""MAE-DET's multi-scale entropy, for networks whose every scale matters, such as detectors.

    score = sum over stages i of w_i (E_i + ln C_i),  w = (0, 0, 1, 1, 6)

E_i and C_i as in `entropy.py`; `stage_weights` of the DAMO-YOLO searches are (0, 0, 1, 1, 16), of classifiers (0,
0, 0, 0, 1). It does not depend on the resolution. Source: Sun et al., MAE-DET (ICML 2022, arXiv 2111.13336); the closed
form is that of its program.

Variant `forward` measures E_i in a forward pass, as the paper does (`forward_passes.measured_entropies`).

Variant `tinynas` is what the TinyNAS program computes: groups are ignored, and the number of stages must be that of
the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import (
    Chain,
    fan_in,
    fan_in_without_groups,
    stage_entropies,
    unit_entropies,
    weights_of_stages,
)

STAGE_WEIGHTS = (0.0, 0.0, 1.0, 1.0, 6.0)


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    variant = SCORE.chosen_variant(options.variant)
    as_program = variant == "tinynas"
    if as_program:
        scored.structure(f"{SCORE.name} (variant tinynas)", "tinynas")
    chain = scored.chain(options, SCORE.name, floor=as_program)
    weights = weights_of_stages(chain, STAGE_WEIGHTS, options.stage_weights, score=SCORE.name, as_program=as_program)
    if variant == "forward":
        from tfnas.proxies.forward_passes import measured_entropies

        return sum_of_stages(chain, weights, measured_entropies(chain, scored, options))
    entropies = unit_entropies(chain, fan_in_without_groups if as_program else fan_in)
    return sum_of_stages(chain, weights, entropies)


def sum_of_stages(chain: Chain, weights: Sequence[float], entropies: Sequence[float]) -> float:
    """The weighted sum of E_i + ln C_i."""
    sums = stage_entropies(chain, entropies)
    terms = zip(weights, chain.stages, sums, strict=True)
    return sum(weight * (entropy + math.log(stage.channels)) for weight, stage, entropy in terms)


SCORE = Score(
    name="multiscale_entropy",
    higher_is_better=True,
    cost="analytic",
    summary="entropy of the feature maps of several scales (MAE-DET, ICML 2022)",
    variants=("default", "forward", "tinynas"),
    measure=measure,
)
