"""TE-NAS: how well a network can be trained (condition of its neural tangent kernel) and how much it can tell apart
(linear regions).

    score = ln R - ln kappa

kappa is the largest over the smallest eigenvalue of Theta[i, j] = <dz_i/dw, dz_j/dw>, with z the sum of an image's
logits and w every parameter with `weight` in its name; weights are Kaiming normal by fan_out. R counts the
different patterns of active activations among 1000 noise images of 3 x 3 pixels; weights are Kaiming normal by
fan_in. Source: Chen et al., Neural Architecture Search on ImageNet in Four GPU Hours (ICLR 2021, arXiv 2102.11535).
It adds the *ranks* of both within a population; one network has no rank, so logarithms stand for them here. For
wide networks all 1000 patterns differ, and R is a constant. Variants `ntk` (-kappa) and `linear_regions` (R) give
each alone.

Variant `zennas` is what the ZenNAS program ranks by: -kappa of the network without shortcuts at PyTorch's
initialisation. (The program's count of regions fails on its own networks.) In single precision kappa of a deep
network is wrong by tens of percent: use `dtype="float64"`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tfnas.proxies.forward_passes import forward_logits, hook_activations
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

REGION_IMAGES = 1000
REGION_PIXELS = 3


def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    variant = SCORE.chosen_variant(options.variant)
    if variant == "linear_regions":
        return float(linear_regions(scored, options))
    if variant != "default":
        return -condition_number(scored, options, as_program=variant == "zennas")
    condition = condition_number(scored, options)
    return math.log(linear_regions(scored, options)) - math.log(condition)


def condition_number(scored: ScoredNetwork, options: ScoreOptions, *, as_program: bool = False) -> float:
    """kappa; infinite where the kernel is singular as far as the precision can tell."""
    rule = "torch" if as_program else "kaiming_fan_out"
    network, generator = scored.initialised(options, rule, residuals=not as_program)
    logits = forward_logits(network, scored.images(options, generator, given=not as_program), SCORE.name)
    eigenvalues = torch.linalg.eigvalsh(tangent_kernel(network, logits))
    lowest, highest = float(eigenvalues[0]), float(eigenvalues[-1])
    resolution = torch.finfo(logits.dtype).eps * len(logits)
    return highest / lowest if lowest > resolution * highest else math.inf


def tangent_kernel(network: nn.Module, logits: Tensor) -> Tensor:
    """Theta (images, images) in double precision.

    Batch norms couple the images of a batch, so every image takes a pass backward through the whole batch.
    """
    weights = [parameter for name, parameter in network.named_parameters() if "weight" in name]
    rows: list[list[Tensor]] = []
    for summed in logits.sum(1):
        gradients = torch.autograd.grad(summed, weights, retain_graph=True, allow_unused=True)
        rows.append([part.flatten() for part in gradients if part is not None])
    kernel = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=logits.device)
    for parts in zip(*rows, strict=True):  # one parameter after another: all at once would need the memory twice
        gradients_of_one = torch.stack(parts).double()
        kernel += gradients_of_one @ gradients_of_one.T
    return kernel


@torch.no_grad()
def linear_regions(scored: ScoredNetwork, options: ScoreOptions) -> int:
    """R: in how many ways the activations of the network switch, among noise images."""
    network, generator = scored.initialised(options, "kaiming", residuals=True)
    shape = (REGION_IMAGES, *scored.image_shape(options)[1:-2], REGION_PIXELS, REGION_PIXELS)
    tiny = scored.placed(generator.images(shape), options)
    patterns = [b""] * REGION_IMAGES

    def see(inputs: Tensor) -> None:
        for number, code in enumerate(_packed(inputs.flatten(1) > 0)):
            patterns[number] += code

    with hook_activations(network, see, score=SCORE.name):
        network(tiny)
    return len(set(patterns))


def _packed(codes: Tensor) -> list[bytes]:
    """Each row of zeros and ones as bytes."""
    import numpy as np

    packed = np.packbits(codes.cpu().numpy(), axis=1)
    return [row.tobytes() for row in packed]


SCORE = Score(
    name="te_nas",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"images", "gradient"}),
    summary="condition number of the neural tangent kernel and number of linear regions (TE-NAS, ICLR 2021)",
    variants=("default", "ntk", "linear_regions", "zennas"),
    measure=measure,
)
