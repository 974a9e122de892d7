"""AZ-NAS: four scores of a network, which are to be combined by ranks within a set (`combine_ranks`).

F_1 .. F_n are the outputs of a structure's units (super-blocks consist of units, a convolution block is one) or of the
stems, blocks and last convolution of an architecture. Noise or given images pass through the network once, with its
shortcuts, batch norms in training mode, and weights normal of variance 2 / fan_in.

    az_expressivity    sum of H_i, the entropy of the eigenvalues of F_i's covariance over images and pixels,
                       H = -sum p ln(p + 1e-8) with p the eigenvalues over their sum
    az_progressivity   min of H_i - H_(i-1): whether every map tells more than the one before
    az_trainability    mean over i of 2 - s - 1 / (s + 1e-6): 0 where gradients pass without growing or shrinking.
                       Random signs g at F_i are passed back to F_(i-1), where they are g'. s is the largest singular
                       value of g'^T g / (images * pixels), channels by channels, where pixels of a larger F_(i-1) that
                       are under one pixel of F_i count as channels of their own
    az_complexity      multiply-accumulates, as `flops` (`baselines.py`)

Source: Lee and Ham, AZ-NAS (CVPR 2024, arXiv 2403.19232). The first three cost one pass together: `measure_terms`
gives all of them, and what was measured for one counts for the others where network and options are the same objects.

Variant `aznas` is what the program computes on ZenNAS structures: from a network without shortcuts
(`residuals=False`) it takes every third map and then the last one, which enters twice where the number of maps is 1
modulo 3, so that `az_trainability` has no value; and eigenvalues may be slightly negative, so that nan may come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.errors import InputError
from tfnas.nn.network import Network
from tfnas.proxies.network_preparation import RandomGenerator
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.spaces.zen.structure_network import StructureNetwork

_LOG_OFFSET = 1e-8
_DIVISION_OFFSET = 1e-6
_PROGRAM = "aznas"
_PROGRAMS_STEP = 3


@dataclass(frozen=True)
class AzTerms:
    """The three terms that need a pass through the network; higher is better."""

    expressivity: float
    progressivity: float
    trainability: float


_measured: WeakKeyDictionary[ScoredNetwork, tuple[ScoreOptions, AzTerms]] = WeakKeyDictionary()


def measure_terms(scored: ScoredNetwork, options: ScoreOptions) -> AzTerms:
    """The terms of a network, measured once for the same network and options (the same objects).

    Raises InputError for modules that are not of this package, and for networks with fewer than two maps.
    """
    known = _measured.get(scored)
    if known is None or known[0] is not options:
        known = _measured[scored] = options, _measure(scored, options)
    return known[1]


def _measure(scored: ScoredNetwork, options: ScoreOptions) -> AzTerms:
    network, generator = scored.initialised(options, "kaiming", residuals=True)
    as_program = options.variant == _PROGRAM
    sections = _sections(_parts(network, scored), as_program and options.residuals is False)
    if len(sections) < 2:
        raise InputError(f"the scores of AZ-NAS compare feature maps, and {scored.text} has only one")
    features = scored.images(options, generator)
    entropies, trainabilities = [], []
    for number, section in enumerate(sections):
        before = features.detach().requires_grad_(number > 0)
        features = before
        for part in section:
            features = part(features)
        entropies.append(_entropy(_pixel_rows(features.detach()), as_program=as_program))
        if number > 0:
            trainabilities.append(_trainability(before, features, generator))
    gains = [later - earlier for earlier, later in pairwise(entropies)]
    return AzTerms(sum(entropies), min(gains), sum(trainabilities) / len(trainabilities))


def _parts(network: nn.Module, scored: ScoredNetwork) -> list[nn.Module]:
    """The modules, one after the other, whose outputs are the maps."""
    if isinstance(network, StructureNetwork):
        return [unit for block in network.blocks for unit in block.children()]
    if isinstance(network, Network):
        blocks = [block for name in network.stage_names for block in network.get_submodule(name).children()]
        return [network.first_stem, network.second_stem, *blocks, network.feature_mix_layer]
    raise InputError(f"the scores of AZ-NAS need an architecture or a structure, and got {scored.kind}")


def _sections(parts: list[nn.Module], every_third: bool) -> list[list[nn.Module]]:
    """The modules that lead from one map to the next."""
    if not every_third:
        return [[part] for part in parts]
    ends = [*range(1, len(parts) + 1, _PROGRAMS_STEP), len(parts)]
    return [parts[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _as_images(maps: Tensor) -> Tensor:
    """(N, C, H, W); the frames of a video (N, C, T, H, W) are images of their own."""
    return maps if maps.dim() == 4 else maps.transpose(1, 2).flatten(0, 1)


def _pixel_rows(maps: Tensor) -> Tensor:
    """(N * positions, C)."""
    return _as_images(maps).permute(0, 2, 3, 1).flatten(0, 2)


def _entropy(rows: Tensor, *, as_program: bool) -> float:
    """Of the eigenvalues of the covariance of columns (channels); `as_program` in the rows' own precision."""
    centred = rows - rows.mean(0)
    if as_program:
        eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(rows))
    else:
        few = len(rows) < rows.shape[1]  # the two products have the same eigenvalues other than 0
        product = centred @ centred.T if few else centred.T @ centred
        eigenvalues = torch.linalg.eigvalsh(product.double() / len(rows)).clamp_min(0)
    shares = eigenvalues / eigenvalues.sum()
    return -float((shares * (shares + _LOG_OFFSET).log()).sum())


def _trainability(before: Tensor, features: Tensor, generator: RandomGenerator) -> float:
    """How far from 1 the largest singular value is of random signs at a map and what arrives of them at that before."""
    signs = generator.signs(features.shape).to(features)
    (passed,) = torch.autograd.grad(features, before, signs)
    if passed.shape == signs.shape and torch.equal(passed, signs):
        return -math.inf
    incoming, outgoing = _pixel_rows(_under_pixels(passed, signs)), _pixel_rows(signs)
    product = (incoming.T @ outgoing / len(outgoing)).double()
    few = product.shape[0] < product.shape[1]
    squared = product @ product.T if few else product.T @ product
    largest = math.sqrt(max(0.0, float(torch.linalg.eigvalsh(squared)[-1])))
    return 2 - largest - 1 / (largest + _DIVISION_OFFSET)


def _under_pixels(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient at the size of a smaller map: pixels that are under one of its pixels become channels.

    Where a side is no multiple, zeros are added, as convolutions pad.
    """
    images, (height, width) = _as_images(gradient), like.shape[-2:]
    step = -(-images.shape[-1] // width)
    missing = [
        step * size - old for size, old in zip((width, height), (images.shape[-1], images.shape[-2]), strict=True)
    ]
    padded = functional.pad(images, (0, missing[0], 0, missing[1]))
    return functional.pixel_unshuffle(padded, step) if step > 1 else padded


def expressivity(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    return measure_terms(scored, options).expressivity


def progressivity(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    return measure_terms(scored, options).progressivity


def trainability(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    return measure_terms(scored, options).trainability


EXPRESSIVITY = Score(
    name="az_expressivity",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"images", "gradient"}),
    summary="entropy of the spectra of all feature maps (AZ-NAS, CVPR 2024)",
    variants=("default", _PROGRAM),
    measure=expressivity,
)
PROGRESSIVITY = Score(
    name="az_progressivity",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"images", "gradient"}),
    summary="smallest gain in entropy from one feature map to the next (AZ-NAS, CVPR 2024)",
    variants=("default", _PROGRAM),
    measure=progressivity,
)
TRAINABILITY = Score(
    name="az_trainability",
    higher_is_better=True,
    cost="gradient",
    needs=frozenset({"images", "gradient"}),
    summary="how well gradients keep their size from one feature map to that before (AZ-NAS, CVPR 2024)",
    variants=("default", _PROGRAM),
    measure=trainability,
)
