"""SynFlow: how much signal flows through all weights at once.

    score = ln of the sum over convolutions and linear layers of |w * dy/dw|,  y = sum f(1), all weights positive

No data, batch norms taken out, float64. The logarithm is taken because the sum reaches 1e238 for a network of 1M
parameters. Source: Tanaka et al. (NeurIPS 2020, arXiv 2006.05467); as a score: Abdelfattah et al., Zero-Cost
Proxies for Lightweight NAS (ICLR 2021).

Variants are what the ZenNAS program computes on networks without shortcuts, with standard normal weights and sums
over a layer's inputs averaged over its outputs: `zennas` keeps batch norms in training mode and turns the sign;
with one constant image all that is left is what zero padding makes, and seeds change the score by as much as
networks do. It fails where a map is 1x1. `zennas_no_batch_norm` leaves batch norms out, and is given as the
logarithm of the magnitude.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from tfnas.proxies.forward_passes import total
from tfnas.proxies.network_preparation import weighted_modules, without_batch_norm
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    variant = SCORE.chosen_variant(options.variant)
    options = dataclasses.replace(options, dtype="float64")
    rule = "kaiming" if variant == "default" else "normal"
    network, _ = scored.initialised(options, rule, residuals=variant == "default")
    if variant != "zennas":
        without_batch_norm(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    one = scored.placed(torch.ones(1, *scored.image_shape(options)[1:]), options)
    torch.autograd.backward(total(network(one)))
    flow = _flow(network, averaged=variant != "default")
    return -flow if variant == "zennas" else float(torch.tensor(flow, dtype=torch.float64).log())


def _flow(network: nn.Module, *, averaged: bool) -> float:
    """The sum over layers of |w * gradient|, each summed, or (`averaged`) averaged over output channels."""
    flow = 0.0
    for module in weighted_modules(network):
        if module.weight.grad is not None:
            layer = float((module.weight * module.weight.grad).detach().abs().sum())
            flow += layer / module.weight.shape[0] if averaged else layer
    return flow


SCORE = Score(
    name="synflow",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"gradient"}),
    summary="ln of the signal that flows through all weights (SynFlow, NeurIPS 2020)",
    variants=("default", "zennas", "zennas_no_batch_norm"),
    measure=measure,
)
