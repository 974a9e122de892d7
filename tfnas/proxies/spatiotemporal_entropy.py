"""STEntr: the multi-scale entropy of a video network.

As `multiscale_entropy.py`, but the fan-in of every convolution with k > 1 is multiplied by how well its kernel fits
the feature map: a = -ln(1 - cos), cos the cosine between (T, R, R) and (kt, k, k), for T frames (`frames`) of R x R
pixels after the block's stride. w = (0, 0, 0, 0, 1). Source: Wang et al., Maximizing Spatio-Temporal Entropy of
Deep 3D CNNs for Efficient Video Recognition (ICLR 2023, arXiv 2303.02693).

Where kernel and map are proportional (16 frames of 16 x 16 pixels and a 3 x 3 x 3 kernel) a is infinite: the score
then fails. Variant `tinynas` rounds sizes down, and the number of stages must be that of the weights.
"""

from __future__ import annotations

import math

from tfnas.core.errors import InputError
from tfnas.core.units import ConvShape, Unit
from tfnas.proxies.multiscale_entropy import sum_of_stages
from tfnas.proxies.score import Score, ScoreFailed
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import fan_in, weights_of_stages

STAGE_WEIGHTS = (0.0, 0.0, 0.0, 0.0, 1.0)


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    as_program = SCORE.chosen_variant(options.variant) == "tinynas"
    if not scored.structure(SCORE.name).is_video:
        raise InputError(f"{SCORE.name} needs a structure for videos, but this one is for images")
    chain = scored.chain(options, SCORE.name, floor=as_program)
    weights = weights_of_stages(chain, STAGE_WEIGHTS, options.stage_weights, score=SCORE.name, as_program=as_program)
    try:
        entropies = [_entropy(unit, options.frames) for unit in chain.units]
    except _Proportional as error:
        raise ScoreFailed(f"score {SCORE.name} of {scored.text} is not finite: {error}", scored.text) from error
    return sum_of_stages(chain, weights, entropies)


class _Proportional(Exception):
    """Kernel and feature map are proportional."""


def _entropy(unit: Unit, frames: int) -> float:
    terms = [math.log(fan_in(conv) * _fit(conv, frames, unit.resolution_out)) for conv in unit.convs]
    return sum(terms) / 2


def _fit(conv: ConvShape, frames: int, size: int) -> float:
    """a of a convolution on `frames` frames of size x size pixels."""
    if conv.kernel == 1:
        return 1.0
    kernel = (conv.temporal_kernel, conv.kernel, conv.kernel)
    if frames * conv.kernel == size * conv.temporal_kernel:
        raise _Proportional(
            f"a kernel of {kernel} fits {frames} frames of {size} x {size} pixels exactly; change frames or image_size"
        )
    cosine = (frames * kernel[0] + 2 * size * kernel[1]) / (math.hypot(frames, size, size) * math.hypot(*kernel))
    return -math.log(1 - cosine)


SCORE = Score(
    name="spatiotemporal_entropy",
    higher_is_better=True,
    cost="analytic",
    summary="entropy of a video network, by how kernels fit feature maps (STEntr of E3D, ICLR 2023)",
    variants=("default", "tinynas"),
    measure=measure,
)
