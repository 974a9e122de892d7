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

import torch
from torch import Tensor, nn

from tfnas.proxies.forward_passes import check_norms, feature_map
from tfnas.proxies.network_preparation import batch_norms, initialise
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

GAMMA = 0.01
_PROGRAMS_MOMENTUM = 0.1


def zen_score(scored: ScoredNetwork, options: ScoreOptions, *, as_program: bool) -> float:
    """The mean over the repeats; `as_program` is variant `zennas`."""
    network = scored.network(options, residuals=False)
    check_norms(network, SCORE.name)
    generator = options.random_generator()
    for norm in batch_norms(network):
        norm.momentum = _PROGRAMS_MOMENTUM if as_program else 1.0
    values = []
    for number in range(options.repeats):
        first = number == 0
        initialise(network, generator, options.initialisation or "normal", reset_statistics=first or not as_program)
        images = scored.images(options, generator, given=False)
        changed = images + GAMMA * scored.images(options, generator, given=False)
        values.append(_once(network, images, changed, as_program=as_program))
    return statistics.fmean(values)


@torch.no_grad()
def _once(network: nn.Module, images: Tensor, changed: Tensor, *, as_program: bool) -> float:
    """The score of one drawing of weights and images."""
    order = (images, changed) if as_program else (changed, images)  # running variances are those of the last pass
    first, second = [feature_map(network, batch) for batch in order]
    difference = (first - second).flatten(1)
    sizes = difference.abs().sum(1) if as_program else torch.linalg.vector_norm(difference, dim=1)
    scales = [_running_variance(norm).mean().double().log() / 2 for norm in batch_norms(network)]
    return float(sizes.mean().double().log()) + float(sum(scales))


def _running_variance(norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
    assert norm.running_var is not None  # set by `prepared`
    return norm.running_var


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
