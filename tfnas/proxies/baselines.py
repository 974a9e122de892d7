"""Baselines that every other score must beat: multiply-accumulates, parameters, and a random number.

`flops` and `params` are true counts of one image or clip, as `tfnas.count` has them: convolutions and linear layers,
biases, the last pool. More is taken for better. A structure is counted with a classifier if `num_classes` is given or
known. Variants are what programs rank by, and count as budgets there do: `zennas` a network without shortcuts, with a
classifier of `num_classes` (1000 by default); `tinynas` without classifier, by bits if a structure states them.
`az_complexity` is the term of AZ-NAS (`az_nas.py`) that needs no pass: `flops`, or in variant `aznas` the
multiply-accumulates that the ZenNAS program counts, shortcuts included.

`random` depends on the network and the seed only. It is standard normal, as in the ZenNAS program; variant `tinynas` is
uniform between 0 and 100. Both programs draw from a global generator, so their networks get other numbers every time.
"""

from __future__ import annotations

import dataclasses
from random import Random

from tfnas.core.units import Counts
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import NUM_CLASSES, ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.spaces.families import architecture_counts
from tfnas.spaces.zen.structure_counts import ReferenceCounts, real_counts, reference_counts
from tfnas.spaces.zen.structure_figures import structure_figures
from tfnas.spaces.zen.zen_family import StructureArchitecture


def flops(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """Multiply-accumulates."""
    return _counts(scored, options, FLOPS).macs


def _counts(scored: ScoredNetwork, options: ScoreOptions, score: Score) -> Counts | ReferenceCounts:
    """The counts that `flops` and `params` are taken from."""
    variant = score.chosen_variant(options.variant)
    if variant != "default":
        return _variant_counts(scored, options, f"{score.name} (variant {variant})", variant)
    size = scored.image_size(options)
    if scored.module is not None:
        from tfnas.nn.counting import count
        from tfnas.proxies.network_preparation import private_copy

        return count(private_copy(scored.module), size, scored.frames(options))
    known = scored.architecture
    counted = scored.structure_architecture(options)
    if counted is not None and known is not None and options.residuals is not False:
        figures = structure_figures().figures(counted)
        return Counts(round(figures["params"]), round(figures["macs"]))
    structure = scored.any_structure
    if structure is None:
        architecture = scored.adapted(options)
        assert architecture is not None
        return architecture_counts(architecture)
    classes = options.num_classes or (None if known is None else known.num_classes)
    use_se = isinstance(known, StructureArchitecture) and known.use_se
    return real_counts(structure, size, classes, options.residuals is not False, use_se, scored.frames(options))


def _variant_counts(scored: ScoredNetwork, options: ScoreOptions, score: str, notation: str) -> ReferenceCounts:
    structure = scored.structure(score, notation)
    size, frames = scored.image_size(options), scored.frames(options)
    if notation == "tinynas":
        return reference_counts(structure, size, options.num_classes, options.residuals is not False, frames=frames)
    return reference_counts(structure, size, options.num_classes or NUM_CLASSES, options.residuals is True)


FLOPS = Score(
    name="flops",
    higher_is_better=True,
    cost="analytic",
    summary="multiply-accumulates of one image",
    variants=("default", "zennas", "tinynas"),
    measure=flops,
)


def complexity(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """Multiply-accumulates, with shortcuts."""
    with_shortcuts = dataclasses.replace(options, variant=None, residuals=options.residuals is not False)
    if COMPLEXITY.chosen_variant(options.variant) == "default":
        return flops(scored, with_shortcuts)
    return _variant_counts(scored, with_shortcuts, f"{COMPLEXITY.name} (variant aznas)", "zennas").macs


COMPLEXITY = Score(
    name="az_complexity",
    higher_is_better=True,
    cost="analytic",
    summary="multiply-accumulates, as a term of AZ-NAS (CVPR 2024)",
    variants=("default", "aznas"),
    measure=complexity,
)


def params(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """Number of parameters."""
    if scored.module is not None and PARAMS.chosen_variant(options.variant) == "default":
        from tfnas.nn.counting import num_params

        return num_params(scored.module)
    return _counts(scored, options, PARAMS).params


PARAMS = Score(
    name="params",
    higher_is_better=True,
    cost="analytic",
    summary="number of parameters",
    variants=("default", "zennas", "tinynas"),
    measure=params,
)


def random_number(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """The same number for the same network and seed."""
    numbers = Random(f"{scored.fingerprint()} {options.seed}")
    if RANDOM.chosen_variant(options.variant) == "tinynas":
        return numbers.uniform(0, 100)
    return numbers.gauss(0, 1)


RANDOM = Score(
    name="random",
    higher_is_better=True,
    cost="analytic",
    summary="a random number, the same for the same network and seed",
    variants=("default", "tinynas"),
    measure=random_number,
    is_control=True,
)
