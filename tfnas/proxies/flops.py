"""FLOPs: the multiply-accumulates of one image or clip, what every other score must beat. More is taken for better.

They are true counts, as `tfnas.count` has them: convolutions and linear layers, biases, the last pool. A structure is
counted with a classifier where `num_classes` is given or known.

Variants are what programs rank by, and count as budgets there do: `zennas` a network without shortcuts, with a
classifier of `num_classes` (1000 by default); `tinynas` without classifier, by bits where a structure states them.
"""

from __future__ import annotations

from tfnas.core.units import Counts
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import NUM_CLASSES, ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.spaces.families import architecture_counts
from tfnas.spaces.zen.reference_counts import ReferenceCounts, reference_counts
from tfnas.spaces.zen.structure_parts import real_counts


def measure(subject: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    return counts_of(subject, options, SCORE).macs


def counts_of(subject: ScoredNetwork, options: ScoreOptions, score: Score) -> Counts | ReferenceCounts:
    """The counts that `flops` and `params` are taken from."""
    variant = score.chosen_variant(options.variant)
    if variant != "default":
        return _book(subject, options, f"{score.name} (variant {variant})", variant)
    size = subject.image_size(options)
    if subject.module is not None:
        from tfnas.nn.counting import count
        from tfnas.proxies.scored_network import private_copy

        return count(private_copy(subject.module), size, options.frames)
    architecture = subject.architecture(options)
    if architecture is not None:
        return architecture_counts(architecture)
    structure = subject.structure(score.name)
    frames = options.frames if structure.is_video else 1
    classes = options.num_classes or (None if subject.sized is None else subject.sized.num_classes)
    residuals = options.residuals is not False
    return real_counts(structure, size, classes, residuals, subject.use_se, frames)


def _book(subject: ScoredNetwork, options: ScoreOptions, score: str, notation: str) -> ReferenceCounts:
    structure = subject.structure(score, notation)
    size, frames = subject.image_size(options), options.frames if structure.is_video else 1
    if notation == "tinynas":
        return reference_counts(structure, size, options.num_classes, options.residuals is not False, frames=frames)
    return reference_counts(structure, size, options.num_classes or NUM_CLASSES, options.residuals is True)


SCORE = Score(
    name="flops",
    higher_is_better=True,
    cost="analytic",
    needs=frozenset(),
    summary="multiply-accumulates of one image",
    variants=("default", "zennas", "tinynas"),
    measure=measure,
)
