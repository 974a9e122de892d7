"""Zen-Score: how strongly a network without shortcuts reacts to a small change of its input.

    score = ln E || f(x) - f(x + 0.01 e) || + sum over batch norms of ln sigma

f gives the last feature map, weights, x and e are standard normal, and sigma^2 is the mean over channels of the
variance in the mini-batch, which the batch norm takes away and the sum puts back. Source: Lin et al., Zen-NAS (ICCV
2021, arXiv 2102.01063).

Variant `zennas` is what the ZenNAS program computes: the sum of absolute differences instead of the norm, and the
batch norms' running variances after the two passes (0.81 + 0.09 v1 + 0.1 v2 for fresh ones). With `repeats` the
running variances go on from repeat to repeat, as there, so that the mean depends on the number of repeats. Its
stand-alone command keeps shortcuts: `residuals=True`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tfnas.proxies.chain_pass import ChainDescription, ChainOutput, describe_chain, pass_chain, weight_shapes
from tfnas.proxies.forward_passes import check_norms, feature_map
from tfnas.proxies.network_preparation import RandomGenerator, batch_norms, initialise, without_classifier
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

GAMMA = 0.01
_PROGRAMS_MOMENTUM = 0.1


def zen_score(scored: ScoredNetwork, options: ScoreOptions, *, as_program: bool) -> float:
    """The mean over the repeats; `as_program` is variant `zennas`."""
    draw_weights = _passes(scored, options)
    generator = options.random_generator()
    running = torch.ones((), dtype=torch.float64)
    values = []
    for _ in range(options.repeats):
        pass_both = draw_weights(generator)
        images = scored.images(options, generator, given=False)
        changed = images + GAMMA * scored.images(options, generator, given=False)
        (first, second), variances = pass_both(images, changed)
        difference = first - second
        if as_program:
            sizes = difference.abs().sum(1)
            for batch in variances.unbind(1):
                running = (1 - _PROGRAMS_MOMENTUM) * running + _PROGRAMS_MOMENTUM * batch
        else:
            sizes, running = torch.linalg.vector_norm(difference, dim=1), variances[:, 0]
        values.append(float(sizes.mean().double().log()) + float(running.log().sum()) / 2)
    return statistics.fmean(values)


_PassBoth = Callable[[Tensor, Tensor], ChainOutput]


def _passes(scored: ScoredNetwork, options: ScoreOptions) -> Callable[[RandomGenerator], _PassBoth]:
    """A function that draws weights and gives the passes of both batches: from the units if it can be, else a module.

    Both draw the same numbers and give the same, up to rounding.
    """
    rule = options.initialisation or "normal"
    chain = describe_chain(scored, options) if rule == "normal" else None
    if chain is not None:
        return lambda generator: partial(pass_chain, chain, _weights(chain, scored, options, generator))
    network = without_classifier(scored.network(options, residuals=False))
    check_norms(network, SCORE.name)
    for norm in batch_norms(network):
        norm.momentum = 1.0  # so that running variances are those of the last pass

    def draw(generator: RandomGenerator) -> _PassBoth:
        initialise(network, generator, rule)
        return partial(pass_network, network)

    return draw


def _weights(
    chain: ChainDescription, scored: ScoredNetwork, options: ScoreOptions, generator: RandomGenerator
) -> list[Tensor]:
    shapes = enumerate(weight_shapes(chain))
    return [scored.placed(generator.weight(place, shape), options) for place, shape in shapes]


@torch.no_grad()
def pass_network(network: nn.Module, images: Tensor, changed: Tensor) -> ChainOutput:
    """Pass two batches through a module whose batch norms have momentum 1."""
    features, variances = [], []
    for batch in (images, changed):
        features.append(feature_map(network, batch).flatten(1))
        norms = [
            float(norm.running_var.double().mean()) for norm in batch_norms(network) if norm.running_var is not None
        ]
        variances.append(torch.tensor(norms, dtype=torch.float64))
    return ChainOutput((features[0], features[1]), torch.stack(variances, 1))


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    return zen_score(scored, options, as_program=SCORE.chosen_variant(options.variant) == "zennas")


SCORE = Score(
    name="zen",
    higher_is_better=True,
    cost="forward",
    summary="sensitivity of the last feature map to an input perturbation, with batch norm scales (Zen-NAS, ICCV 2021)",
    variants=("default", "zennas"),
    measure=measure,
)
