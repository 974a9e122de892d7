"""QE-Score: the multi-scale entropy of a network with few bits.

Every convolution adds, beside ln(fan_in) / 2, the gain ln( S(sa, ba) S(sw, bw) ) - ln sa of quantisation: S(sigma,
b) is the standard deviation of a normal variable of standard deviation sigma after rounding to whole numbers and
cutting off at +-2^(b-1); sw = 4 (`weight_std`) and sa = 5 (`activation_std`) are those of weights and activations
in steps. Source: Sun et al., Entropy-Driven Mixed-Precision Quantization for Deep Network Design (NeurIPS 2022).

Bits are those that the structure states. `bits` gives them to a network that states none. Variant `tinynas` as in
`multiscale_entropy.py`.
"""

from __future__ import annotations

import math
from functools import cache

from tfnas.core.errors import InputError
from tfnas.core.units import ConvShape
from tfnas.proxies.multiscale_entropy import STAGE_WEIGHTS, sum_of_stages
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import fan_in, fan_in_without_groups, unit_entropies, weights_of_stages

_DOUBLE_TAIL = 40  # standard deviations, beyond which nothing is left of a normal variable in double precision


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    as_program = SCORE.chosen_variant(options.variant) == "tinynas"
    if as_program:
        scored.structure(f"{SCORE.name} (variant tinynas)", "tinynas")
    chain = scored.chain(options, SCORE.name, floor=as_program)
    plain = unit_entropies(chain, fan_in_without_groups if as_program else fan_in)
    gains = [sum([_gain(conv, options) for conv in unit.convs]) for unit in chain.units]
    weights = weights_of_stages(chain, STAGE_WEIGHTS, options.stage_weights, score=SCORE.name, as_program=as_program)
    return sum_of_stages(chain, weights, [entropy + gain for entropy, gain in zip(plain, gains, strict=True)])


def _gain(conv: ConvShape, options: ScoreOptions) -> float:
    """What quantisation adds to a convolution's entropy."""
    weight_bits, activation_bits = conv.weight_bits or options.bits, conv.activation_bits or options.bits
    if weight_bits is None or activation_bits is None:
        raise InputError(
            f"{SCORE.name} needs bits, and this network states none: give bits=8, or a structure with nbitsA and nbitsW"
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


SCORE = Score(
    name="quantized_entropy",
    higher_is_better=True,
    cost="analytic",
    summary="multi-scale entropy of a low-bit network (QE-Score, NeurIPS 2022)",
    variants=("default", "tinynas"),
    measure=measure,
)
