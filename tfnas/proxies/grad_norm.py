"""GradNorm: how large the gradients of one batch are.

    score = sum over convolutions and linear layers of || dL/dw ||,  L = mean cross-entropy

Source: Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS (ICLR 2021), on real images and labels (`images`,
`labels`); without them noise and random classes are used.

Variant `zennas` is what the ZenNAS program computes: no shortcuts, standard normal weights, noise and random
classes, and the norm of all parameters together. Without shortcuts gradients grow exponentially with depth (1e1 to
4e13), and single precision is wrong by tens of percent: use `dtype="float64"`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.proxies.forward_passes import checked_labels, forward_logits
from tfnas.proxies.network_preparation import weighted_modules
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    as_program = SCORE.chosen_variant(options.variant) == "zennas"
    rule = "normal" if as_program else "kaiming"
    network, generator = scored.initialised(options, rule, residuals=not as_program)
    images = scored.images(options, generator, given=not as_program)
    logits = forward_logits(network, images, SCORE.name)
    given = None if as_program else options.labels
    labels = generator.labels(logits.shape[1], len(logits)) if given is None else checked_labels(given, logits)
    torch.autograd.backward(functional.cross_entropy(logits, labels.to(logits.device)))
    if as_program:
        return float(_euclidean_norm([parameter.grad for parameter in network.parameters()]))
    return sum(float(_euclidean_norm([module.weight.grad])) for module in weighted_modules(network))


def _euclidean_norm(gradients: list[Tensor | None]) -> Tensor:
    """The Euclidean norm of tensors taken together, in double precision; those that are None count as 0."""
    norms = [torch.linalg.vector_norm(part.double()) for part in gradients if part is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


SCORE = Score(
    name="grad_norm",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"images", "labels", "gradient"}),
    summary="norms of the gradients of one batch, summed over layers (Abdelfattah et al., ICLR 2021)",
    variants=("default", "zennas"),
    measure=measure,
)
