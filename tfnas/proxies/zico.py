"""ZiCo: how large and how alike the gradients of two batches are, weight by weight.

    score = sum over convolutions and linear layers of ln( sum over weights of mean |g| / std g ),  g = d(mean
            cross-entropy) / dw

Mean and standard deviation are over the batches, so with two of them a weight counts (|g1| + |g2|) / |g1 - g2|. Weights
whose gradients are equal are left out, and so are layers that have no others or no gradient at all. Real labelled
images are needed: the first half of `images` and `labels` is one batch, the second half the other; a set of
networks must get the same. Weights are at PyTorch's initialisation. Source: Li et al., ZiCo (ICLR 2023, arXiv
2301.11300); its search takes 128 images a batch and networks without shortcuts (`residuals=False`).

Weights whose gradients nearly agree make up most of the sum. In single precision, the default, it is off by up to 3 %,
enough to change ranks; `dtype="float64"` is exact, and slow for depthwise convolutions on a CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.errors import InputError
from tfnas.proxies.forward_passes import checked_labels, forward_logits
from tfnas.proxies.network_preparation import weighted_modules
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

_FEWEST = 4


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    images, labels = _given(options)
    network, _ = scored.initialised(options, "torch", residuals=True)
    halves = zip(scored.placed(images, options).chunk(2), labels.chunk(2), strict=True)
    first, second = [_gradients(network, *half) for half in halves]
    sums = [_inner_sum(one, other) for one, other in zip(first, second, strict=True) if one is not None is not other]
    if not any(sums):
        raise InputError(f"{SCORE.name}: no convolution or linear layer of {scored.text} gets a gradient that varies")
    return sum(math.log(inner) for inner in sums if inner > 0)


def _given(options: ScoreOptions) -> tuple[Tensor, Tensor]:
    """Images and labels of both batches. Raises InputError where they are missing or do not fit each other."""
    images, labels = options.images, options.labels
    if images is None or labels is None:
        missing = " and ".join(name for name in ("images", "labels") if getattr(options, name) is None)
        raise InputError(f"{SCORE.name} needs real images and their labels, two batches in one: give {missing}")
    count = len(images)
    if count < _FEWEST or count % 2:
        raise InputError(
            f"{SCORE.name} takes two equal batches: give {_FEWEST} images or more, an even number, got {count}"
        )
    if labels.shape != (count,):
        raise InputError(f"{SCORE.name}: {count} images need {count} labels, got shape {tuple(labels.shape)}")
    return images, labels


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor | None]:
    """Of every convolution's and linear layer's weight, None where the loss does not depend on it."""
    logits = forward_logits(network, images, SCORE.name)
    loss = functional.cross_entropy(logits, checked_labels(labels, logits).to(logits.device))
    weights = [module.weight for module in weighted_modules(network)]
    return list(torch.autograd.grad(loss, weights, allow_unused=True))


def _inner_sum(one: Tensor, other: Tensor) -> float:
    """The sum over a layer's weights, in double precision."""
    one, other = one.double(), other.double()
    differences = (one - other).abs()
    varies = differences != 0
    return float(((one.abs() + other.abs())[varies] / differences[varies]).sum())


SCORE = Score(
    name="zico",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"images", "labels", "gradient"}),
    needs_data=True,
    summary="mean over deviation of gradients between two batches of real images (ZiCo, ICLR 2023)",
    measure=measure,
)
