"""Entropies of units measured by a pass forward, where `unit_entropy.py` has the expected values in closed form.

Noise passes through the convolutions one after another, with standard normal weights and the activations between them,
but without shortcuts, batch norms and squeeze-and-excite. Every map is divided by its standard deviation, so that
nothing overflows, and the logarithms of these are added up: for ReLU that is the logarithm of the standard deviation
that the last map would have. Beside the fan-in it has what activations and zero padding take away. Source: MAE-DET
(ICML 2022, arXiv 2111.13336).

MAE-DET's multi-scale entropy, for networks whose every scale matters, such as detectors.

    score = sum over stages i of w_i (E_i + ln C_i),  w = (0, 0, 1, 1, 6)

E_i and C_i as in `entropy.py`; `stage_weights` of the DAMO-YOLO searches are (0, 0, 1, 1, 16), of classifiers (0,
0, 0, 0, 1). It does not depend on the resolution. Source: Sun et al., MAE-DET (ICML 2022, arXiv 2111.13336); the closed
form is that of its program.

Variant `forward` measures E_i with a pass forward, as the paper does: `measured_entropy.py`.

Variant `tinynas` is what the TinyNAS program computes: groups are ignored, and the number of stages must be that of
the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.core.units import ConvShape
from tfnas.proxies.initialise import RandomGenerator
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork, preserve_state
from tfnas.proxies.unit_entropy import (
    Chain,
    fan_in,
    fan_in_without_groups,
    stage_entropies,
    unit_entropies,
    weights_of_stages,
)

_ACTIVATIONS = {"relu": functional.relu, "silu": functional.silu, "swish": functional.silu}


def measured_entropies(chain: Chain, subject: ScoredNetwork, options: ScoreOptions) -> list[float]:
    """Of every unit, the logarithm of the factor by which it makes the standard deviation of its map larger."""
    draws = options.random_numbers()
    entropies, place = [], 0
    with preserve_state(options), torch.no_grad():
        features = subject.images(options, draws, given=False)
        for unit in chain.units:
            gained = 0.0
            for number, conv in enumerate(unit.convs):
                features = _convolved(features, conv, draws, place, is_video=chain.is_video)
                scale = features.std()
                gained += float(scale.double().log())
                features = features / scale
                if number < len(unit.convs) - 1 or unit.ends_in_activation:
                    features = _ACTIVATIONS[unit.activation](features)
                place += 1
            entropies.append(gained)
    return entropies


def _convolved(features: Tensor, conv: ConvShape, draws: RandomGenerator, place: int, *, is_video: bool) -> Tensor:
    """The output of a convolution with standard normal weights and no bias."""
    size, time = conv.kernel, conv.temporal_kernel
    shape = (conv.out_channels, conv.in_channels // conv.groups)
    if is_video:
        weight = draws.weight(place, (*shape, time, size, size)).to(features)
        stride, padding = (1, conv.stride, conv.stride), (time // 2, size // 2, size // 2)
        return functional.conv3d(features, weight, None, stride, padding, 1, conv.groups)
    weight = draws.weight(place, (*shape, size, size)).to(features)
    return functional.conv2d(features, weight, None, conv.stride, size // 2, 1, conv.groups)


STAGE_WEIGHTS = (0.0, 0.0, 1.0, 1.0, 6.0)


def measure(subject: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    variant = SCORE.chosen_variant(options.variant)
    as_program = variant == "tinynas"
    if as_program:
        subject.structure(f"{SCORE.name} (variant tinynas)", "tinynas")
    chain = subject.chain(options, SCORE.name, floor=as_program)
    weights = weights_of_stages(chain, STAGE_WEIGHTS, options.stage_weights, score=SCORE.name, as_program=as_program)
    if variant == "forward":
        return sum_of_stages(chain, weights, measured_entropies(chain, subject, options))
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
    needs=frozenset(),
    summary="entropy of the feature maps of several scales (MAE-DET, ICML 2022)",
    variants=("default", "forward", "tinynas"),
    measure=measure,
)
