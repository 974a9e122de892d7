"""Entropies of units measured by a pass forward, where `unit_entropy.py` has the expected values in closed form.

Noise passes through the convolutions one after another, with standard normal weights and the activations between them,
but without shortcuts, batch norms and squeeze-and-excite. Every map is divided by its standard deviation, so that
nothing overflows, and the logarithms of these are added up: for ReLU that is the logarithm of the standard deviation
that the last map would have. Beside the fan-in it has what activations and zero padding take away. Source: MAE-DET
(ICML 2022, arXiv 2111.13336).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.structures.units import Conv
from tfnas.zeroshot.chain import Chain
from tfnas.zeroshot.copies import undisturbed
from tfnas.zeroshot.draws import Draws
from tfnas.zeroshot.options import ScoreOptions
from tfnas.zeroshot.subject import Subject

_ACTIVATIONS = {"relu": functional.relu, "silu": functional.silu, "swish": functional.silu}


def measured_entropies(chain: Chain, subject: Subject, options: ScoreOptions) -> list[float]:
    """Of every unit, the logarithm of the factor by which it makes the standard deviation of its map larger."""
    draws = options.random_numbers()
    entropies, place = [], 0
    with undisturbed(options), torch.no_grad():
        features = subject.images(options, draws, given=False)
        for unit in chain.units:
            gained = 0.0
            for number, conv in enumerate(unit.convs):
                features = _convolved(features, conv, draws, place, is_video=chain.is_video)
                scale = features.std()
                gained += float(scale.double().log())
                features = features / scale
                if number < len(unit.convs) - 1 or unit.ends_in_activation:
                    features = _ACTIVATIONS[unit.activation](features)
                place += 1
            entropies.append(gained)
    return entropies


def _convolved(features: Tensor, conv: Conv, draws: Draws, place: int, *, is_video: bool) -> Tensor:
    """The output of a convolution with standard normal weights and no bias."""
    size, time = conv.kernel, conv.temporal_kernel
    shape = (conv.out_channels, conv.in_channels // conv.groups)
    if is_video:
        weight = draws.weight(place, (*shape, time, size, size)).to(features)
        stride, padding = (1, conv.stride, conv.stride), (time // 2, size // 2, size // 2)
        return functional.conv3d(features, weight, None, stride, padding, 1, conv.groups)
    weight = draws.weight(place, (*shape, size, size)).to(features)
    return functional.conv2d(features, weight, None, conv.stride, size // 2, 1, conv.groups)
