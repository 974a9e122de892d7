"""Multi-scale entropies: the entropy of feature maps at every scale, of plain, low-bit and video networks.

    score = sum over stages i of w_i (E_i + ln C_i)

C_i are the channels of stage i, E_i the entropy of all units up to its end (`unit_entropy.py`); `stage_weights` are w.

`multiscale_entropy` is MAE-DET's, for networks whose every scale matters, such as detectors: w = (0, 0, 1, 1, 6); those
of the DAMO-YOLO searches are (0, 0, 1, 1, 16), of classifiers (0, 0, 0, 0, 1). It does not depend on the resolution.
Source: Sun et al., MAE-DET (ICML 2022, arXiv 2111.13336); the closed form is that of its program. Variant `forward`
measures E_i in a forward pass, as the paper does (`forward_passes.measured_entropies`).

`quantized_entropy` is the QE-Score of a low-bit network. In addition to ln(fan_in) / 2, every convolution adds the gain
ln( S(sa, ba) S(sw, bw) ) - ln sa of quantisation: S(sigma, b) is the standard deviation of a normal variable of
standard deviation sigma after rounding to integers and clipping at +-2^(b-1); sw = 4 (`weight_std`) and sa = 5
(`activation_std`) are those of weights and activations in steps. Bits are those of the structure, or `bits` if it has
none. Source: Sun et al., Entropy-Driven Mixed-Precision Quantization for Deep Network Design (NeurIPS 2022).

`spatiotemporal_entropy` is STEntr, of a video network: the fan-in of every convolution with k > 1 is multiplied by how
well its kernel fits the feature map, a = -ln(1 - cos), cos the cosine between (T, R, R) and (kt, k, k), for T frames
(`frames`) of R x R pixels after the block's stride; w = (0, 0, 0, 0, 1). If kernel and map are proportional (16 frames
of 16 x 16 pixels and a 3 x 3 x 3 kernel), a is infinite and the score fails. Source: Wang et al., Maximizing
Spatio-Temporal Entropy of Deep 3D CNNs for Efficient Video Recognition (ICLR 2023, arXiv 2303.02693).

Variant `tinynas` is what the TinyNAS program computes: groups are ignored (sizes rounded down for videos), and the
number of stages must be that of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from tfnas.core.errors import InputError
from tfnas.core.units import ConvShape, Unit
from tfnas.proxies.score import Score, ScoreFailed
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
from tfnas.spaces.zen.structure_figures import structure_figures

STAGE_WEIGHTS = (0.0, 0.0, 1.0, 1.0, 6.0)


def multiscale_entropy(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """MAE-DET's entropy."""
    variant = MULTISCALE.chosen_variant(options.variant)
    as_program = variant == "tinynas"
    structure = scored.structure_architecture(options) if variant == "default" else None
    if structure is not None:
        stages, _ = structure_figures().stages(structure)
        weights = weights_of_stages(len(stages), STAGE_WEIGHTS, options.stage_weights, score=MULTISCALE.name)
        terms = zip(weights, stages, strict=True)
        return sum([weight * (stage.log_width / 2 + math.log(stage.channels)) for weight, stage in terms])
    if as_program:
        scored.structure(f"{MULTISCALE.name} (variant tinynas)", "tinynas")
    chain = scored.chain(options, MULTISCALE.name, floor=as_program)
    weights = weights_of_stages(
        len(chain.stages), STAGE_WEIGHTS, options.stage_weights, score=MULTISCALE.name, as_program=as_program
    )
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


MULTISCALE = Score(
    name="multiscale_entropy",
    higher_is_better=True,
    cost="analytic",
    summary="entropy of the feature maps of several scales (MAE-DET, ICML 2022)",
    variants=("default", "forward", "tinynas"),
    measure=multiscale_entropy,
)


# ---- low-bit networks -----------------------------------------------------------------------------------------------

_DOUBLE_TAIL = 40  # standard deviations, beyond which nothing is left of a normal variable in double precision


def quantized_entropy(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """QE-Score."""
    as_program = QUANTIZED.chosen_variant(options.variant) == "tinynas"
    if as_program:
        scored.structure(f"{QUANTIZED.name} (variant tinynas)", "tinynas")
    chain = scored.chain(options, QUANTIZED.name, floor=as_program)
    plain = unit_entropies(chain, fan_in_without_groups if as_program else fan_in)
    gains = [sum([_gain(conv, options) for conv in unit.convs]) for unit in chain.units]
    weights = weights_of_stages(
        len(chain.stages), STAGE_WEIGHTS, options.stage_weights, score=QUANTIZED.name, as_program=as_program
    )
    return sum_of_stages(chain, weights, [entropy + gain for entropy, gain in zip(plain, gains, strict=True)])


def _gain(conv: ConvShape, options: ScoreOptions) -> float:
    """What quantisation adds to a convolution's entropy."""
    weight_bits, activation_bits = conv.weight_bits or options.bits, conv.activation_bits or options.bits
    if weight_bits is None or activation_bits is None:
        raise InputError(
            f"{QUANTIZED.name} needs bits, but this network has none: give bits=8, or a structure with nbitsA "
            "and nbitsW"
        )
    return _log_gain(options.activation_std, activation_bits, options.weight_std, weight_bits)


@cache
def _log_gain(activation_std: float, activation_bits: int, weight_std: float, weight_bits: int) -> float:
    spread = quantized_std(activation_std, activation_bits) * quantized_std(weight_std, weight_bits)
    return math.log(spread / activation_std)


@cache
def quantized_std(std: float, bits: int) -> float:
    """S(std, bits): the standard deviation of N(0, std^2), rounded to whole numbers and cut off at +-2^(bits - 1).

    In closed form: E q^2 = sum over q = 1 .. m of (2 q - 1) P(|x| > q - 1/2), since q^2 is the sum of q odd numbers.
    """
    largest = min(2 ** (bits - 1), math.ceil(_DOUBLE_TAIL * std))
    tails = [(2 * q - 1) * math.erfc((q - 0.5) / (std * math.sqrt(2))) for q in range(1, largest + 1)]
    return math.sqrt(math.fsum(tails))


QUANTIZED = Score(
    name="quantized_entropy",
    higher_is_better=True,
    cost="analytic",
    summary="multi-scale entropy of a low-bit network (QE-Score, NeurIPS 2022)",
    variants=("default", "tinynas"),
    measure=quantized_entropy,
)


# ---- video networks -------------------------------------------------------------------------------------------------

VIDEO_STAGE_WEIGHTS = (0.0, 0.0, 0.0, 0.0, 1.0)


def spatiotemporal_entropy(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """STEntr."""
    as_program = SPATIOTEMPORAL.chosen_variant(options.variant) == "tinynas"
    if not scored.structure(SPATIOTEMPORAL.name).is_video:
        raise InputError(f"{SPATIOTEMPORAL.name} needs a structure for videos, but this one is for images")
    chain = scored.chain(options, SPATIOTEMPORAL.name, floor=as_program)
    weights = weights_of_stages(
        len(chain.stages), VIDEO_STAGE_WEIGHTS, options.stage_weights, score=SPATIOTEMPORAL.name, as_program=as_program
    )
    try:
        entropies = [_entropy(unit, scored.frames(options)) for unit in chain.units]
    except _Proportional as error:
        raise ScoreFailed(
            f"score {SPATIOTEMPORAL.name} of {scored.text} is not finite: {error}", scored.text
        ) from error
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


SPATIOTEMPORAL = Score(
    name="spatiotemporal_entropy",
    higher_is_better=True,
    cost="analytic",
    summary="entropy of a video network, by how kernels fit feature maps (STEntr of E3D, ICLR 2023)",
    variants=("default", "tinynas"),
    measure=spatiotemporal_entropy,
)
