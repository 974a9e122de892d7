"""DeepMAD's entropy: how much a network's feature maps can hold, less a penalty on unequal depths.

    score = sum over stages i of w_i (ln C_i + ln R_i^2) E_i - beta exp(std of depths)

E_i is the entropy of all units up to the end of stage i (`unit_entropy.py`), C_i its channels, R_i its resolution,
w = (1, 1, 1, 1, 8) (`stage_weights`), beta = 10 (`depth_penalty`). A depth is the number of units of a residual
super-block. `exponents` are alpha1 and alpha2, which a fan-in's channels and its kernel's area are raised to. Source:
Shen et al., DeepMAD (CVPR 2023, arXiv 2303.02165); standard deviation and factor 1/2 as in its program.

The method only lets networks with a small `effectiveness` (rho) be found: at most 0.3 to 0.5.

Variant `tinynas` is what the TinyNAS program computes: sizes rounded down, at 224 pixels unless told; groups
ignored; resolution 1 from the first block with squeeze-and-excite on, so that the term vanishes; the depths of the
first blocks left out (two for K1KXK1, which must be five; one for KXKX; none else). `depth_penalty=0` gives the
score before the penalty.
"""

from __future__ import annotations

import math

from tfnas.core.errors import InputError
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.proxies.unit_entropy import (
    Chain,
    chain_effectiveness,
    fan_in,
    fan_in_without_groups,
    stage_entropies,
    unequal_depth_penalty,
    unit_entropies,
    weights_of_stages,
    with_exponents,
)
from tfnas.spaces.zen.structure_figures import structure_figures

STAGE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 8.0)
_FIRST_DEPTHS_LEFT_OUT = {"k1kxk1": 2, "kxkx": 1}
_DEPTHS_OF_THE_PROGRAM = 5


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    if SCORE.chosen_variant(options.variant) == "tinynas":
        return _as_tinynas(scored, options)
    structure = scored.structure_architecture(options)
    if structure is not None and options.exponents == (1.0, 1.0):
        stages, depths = structure_figures().stages(structure)
        weights = weights_of_stages(len(stages), STAGE_WEIGHTS, options.stage_weights, score=SCORE.name)
        terms = zip(weights, stages, strict=True)
        raw = sum([weight * _volume(stage.channels, stage.resolution) * stage.log_width / 2 for weight, stage in terms])
        return raw - unequal_depth_penalty(depths, options.depth_penalty)
    chain = scored.chain(options, SCORE.name)
    weights = weights_of_stages(len(chain.stages), STAGE_WEIGHTS, options.stage_weights, score=SCORE.name)
    resolutions = [stage.resolution for stage in chain.stages]
    entropies = unit_entropies(chain, with_exponents(fan_in, options.exponents))
    raw = weighted_entropy(chain, weights, resolutions, entropies)
    return raw - unequal_depth_penalty(chain.depths, options.depth_penalty)


def weighted_entropy(chain: Chain, weights: tuple[float, ...], resolutions: list[int], entropies: list[float]) -> float:
    """The score without its penalty."""
    sums = stage_entropies(chain, entropies)
    total = 0.0
    for weight, stage, size, entropy in zip(weights, chain.stages, resolutions, sums, strict=True):
        total += weight * _volume(stage.channels, size) * entropy
    return total


def _volume(channels: int, size: int) -> float:
    """The logarithm of the numbers in a feature map."""
    return math.log(channels) + 2 * math.log(size)


def effectiveness(scored: object, *, image_size: int | None = None, as_program: bool = False) -> float:
    """DeepMAD's rho of whatever `score` takes: depth over mean width; `as_program` ignores groups, as TinyNAS does.

    Raises InputError for a module that is not of this package.
    """
    chain = ScoredNetwork.of(scored).chain(ScoreOptions(image_size=image_size), "effectiveness")
    return chain_effectiveness(chain, fan_in_without_groups if as_program else fan_in)


def counted_depths(chain: Chain) -> tuple[int, ...]:
    """The depths that the TinyNAS and Incorporated-NAS programs look at, by the first residual block's type."""
    first = chain.block_types[0] if chain.block_types else ""
    return chain.depths[_FIRST_DEPTHS_LEFT_OUT.get(first, 0) :]


def _as_tinynas(scored: ScoredNetwork, options: ScoreOptions) -> float:
    structure = scored.structure(f"{SCORE.name} (variant tinynas)", "tinynas")
    chain = scored.chain(options, SCORE.name, floor=True)
    stages = len(chain.stages)
    weights = weights_of_stages(stages, STAGE_WEIGHTS, options.stage_weights, score=SCORE.name, as_program=True)
    for block in structure.blocks:
        if block.block_type == "k1kx":
            raise InputError(f"{SCORE.name}: the TinyNAS program has no such entropy for blocks of type k1kx")
    if options.depth_penalty and chain.block_types[:1] == ("k1kxk1",) and len(chain.depths) != _DEPTHS_OF_THE_PROGRAM:
        raise InputError(
            f"{SCORE.name}: the TinyNAS program takes {_DEPTHS_OF_THE_PROGRAM} residual super-blocks, this one has "
            f"{len(chain.depths)}; depth_penalty=0 leaves the penalty out"
        )
    entropies = unit_entropies(chain, with_exponents(fan_in_without_groups, options.exponents))
    raw = weighted_entropy(chain, weights, _resolutions_of_the_program(chain), entropies)
    return raw - unequal_depth_penalty(counted_depths(chain), options.depth_penalty)


def _resolutions_of_the_program(chain: Chain) -> list[int]:
    """The resolution of every stage, which is 1 from the first block with squeeze-and-excite on."""
    resolutions = []
    for stage in chain.stages:
        excited = any(unit.squeeze_excite is not None for unit in chain.units[: stage.num_units])
        resolutions.append(1 if excited else stage.resolution)
    return resolutions


SCORE = Score(
    name="entropy",
    higher_is_better=True,
    cost="analytic",
    summary="entropy of all stages, less a penalty on unequal depths (DeepMAD, CVPR 2023)",
    variants=("default", "tinynas"),
    measure=measure,
)
