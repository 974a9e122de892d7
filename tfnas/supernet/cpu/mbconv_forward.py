"""The forward pass of an MBConv with batch statistics, made for caches; `mbconv_backward` has the other one.

On a CPU most of a search step's time is not arithmetic: expanded feature maps go to memory and back some ten times per
operation, for batch statistics, normalising and activation, and all of them are saved for the backward pass. Here

* the expansion's batch norm is folded into its weights. A 1x1 convolution's batch statistics follow from mean and
  covariance of its input, which all operations of a block share: var(w x) = w cov(x) w^T. Its backward pass is folded
  in the same way, into matrices of the input's few channels, whose sum over a block's operations is applied once.
  Where a block's input has few pixels and many channels, the expanded map is smaller than these, and is saved;
* some images at a time go through expansion, activation and depthwise convolution, and back: their expanded maps,
  the largest ones, stay in cache and never exist whole. The backward pass computes them again, which takes no longer
  than fetching them would;
* what is pointwise runs over a few rows (pixels x channels) at a time, from the convolution through activation to the
  next product, in as few passes as possible (`row_ops.py`). Only outputs of depthwise convolution and projection are
  saved for the backward pass, normalised.

Rows are channels-last pixels: a map (N, C, H, W) is a matrix (N * H * W, C).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.nn.blocks import BATCH_NORM_EPS, MBConvWeights, to_maps, to_rows
from tfnas.supernet.cpu.row_ops import (
    activate,
    excite,
    image_means,
    images_per_tile,
    normalize,
    normalize_and_activate,
    rows_per_tile,
    split_rows,
    statistics,
    tile_buffer,
)


class Moments(NamedTuple):
    """Covariance (C, C) of a map's channels over images and pixels, and its rows (N * H * W, C) less their mean.

    No covariance where there are so few pixels that batch norm is less work on expanded rows than on their weights.
    """

    covariance: Tensor | None
    centred: Tensor


def input_moments(features: Tensor) -> Moments:
    """Moments of a block's input (N, C, H, W), for all of its operations; no gradient passes through them."""
    rows = to_rows(features.detach())
    centred = rows - rows.mean(0)
    pixels, channels = rows.shape
    few = pixels < channels**2 / 10 + 4 * channels  # measured
    return Moments(None if few else centred.t() @ centred / pixels, centred)


class MBConvSpec(NamedTuple):
    """What of an operation is not a tensor."""

    stride: int
    relu: bool
    """Whether the activation is ReLU, not swish."""


class SavedTensors(NamedTuple):
    """What the backward pass needs beside inputs and weights. Maps are rows; `scale` is 1 / standard deviation."""

    expansion_scale: Tensor | None
    folded: Tensor | None  # expansion weights times their scale (M, in), of many pixels
    expanded: Tensor | None  # normalised, of few pixels: there it takes less time than computing it again
    depthwise_scale: Tensor
    depthwise: Tensor  # normalised
    projected_scale: Tensor
    projected: Tensor  # normalised, a map
    squeezed: Tensor | None  # means (N, M)
    reduced: Tensor | None  # before the activation (N, S)
    gate: Tensor | None  # (N, M)


def forward_pass(
    features: Tensor, moments: Moments | None, weights: MBConvWeights, spec: MBConvSpec, out: Tensor | None = None
) -> SavedTensors:
    """Of one operation for its block's input (N, in, H, W); its output is `projected`.

    The output's rows are written to the matrix `out`, if one is given.
    """
    images = len(features)
    scale = folded = expanded = None
    if weights.expansion is None:
        maps = _convolve(features, weights.depthwise, spec.stride)
    else:
        assert moments is not None
        plain = weights.expansion.flatten(1)
        if moments.covariance is None:
            maps, scale, expanded = _expand_few(features, moments.centred, plain, weights.depthwise, spec)
        else:
            variance = ((plain @ moments.covariance) * plain).sum(1).clamp_min(0)
            scale = (variance + BATCH_NORM_EPS).rsqrt()
            folded = plain * scale[:, None]
            maps = _expand(features, moments.centred, folded, weights.depthwise, spec)
    depthwise = to_rows(maps)
    mean, depthwise_scale = statistics(depthwise, BATCH_NORM_EPS)
    projected = features.new_empty(len(depthwise), len(weights.projection)) if out is None else out
    gates = _project(depthwise, mean, depthwise_scale, projected, images, spec.relu, weights)
    mean, projected_scale = statistics(projected, BATCH_NORM_EPS)
    normalize(projected, mean, projected_scale)
    output = to_maps(projected, images, *maps.shape[2:])
    return SavedTensors(scale, folded, expanded, depthwise_scale, depthwise, projected_scale, output, *gates)


def _expand_few(
    features: Tensor, centred: Tensor, plain: Tensor, kernel: Tensor, spec: MBConvSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """Few rows through expansion, batch norm, activation and depthwise convolution; also scale and normalised rows."""
    expanded = centred @ plain.t()
    mean, scale = statistics(expanded, BATCH_NORM_EPS)
    activated = torch.empty_like(expanded)
    normalize_and_activate(expanded, mean, scale, activated, spec.relu)
    maps = _convolve(to_maps(activated, len(features), *features.shape[2:]), kernel, spec.stride)
    return maps, scale, expanded


def _expand(features: Tensor, centred: Tensor, folded: Tensor, kernel: Tensor, spec: MBConvSpec) -> Tensor:
    """Rows through expansion, batch norm, activation and depthwise convolution, some images at a time."""
    height, width = features.shape[2:]
    some, buffer = expanded_tile(features, len(folded))
    outputs: list[Tensor] = []
    for inputs in torch.split(centred, some * height * width):
        expanded = torch.mm(inputs, folded.t(), out=buffer[: inputs.shape[0]])
        activate(expanded, expanded, spec.relu)
        outputs.append(_convolve(to_maps(expanded, -1, height, width), kernel, spec.stride))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def expanded_tile(features: Tensor, channels: int) -> tuple[int, Tensor]:
    """How many of these images (N, in, H, W) fit into the cache when expanded, and a buffer for their expanded rows."""
    images, _, height, width = features.shape
    some = images_per_tile(rows_per_tile(features, channels), height * width)
    return some, features.new_empty(min(some, images) * height * width, channels)


def _convolve(maps: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """A depthwise convolution."""
    return functional.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=len(kernel))


def _project(
    depthwise: Tensor, mean: Tensor, scale: Tensor, projected: Tensor, images: int, relu: bool, weights: MBConvWeights
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Rows normalised in place, activated, excited and projected to `projected`; returns what SE computed."""
    across, tile = weights.projection.flatten(1).t(), rows_per_tile(depthwise, depthwise.shape[1])
    if weights.reduce is None:
        buffer = tile_buffer(depthwise, tile)
        for values, outputs in split_rows(tile, depthwise, projected):
            activated = buffer[: len(values)]
            normalize_and_activate(values, mean, scale, activated, relu)
            torch.mm(activated, across, out=outputs)
        return None, None, None
    pixels, channels = len(depthwise) // images, depthwise.shape[1]
    squeezed = depthwise.new_empty(images, channels)
    reduced, gate = depthwise.new_empty(images, len(weights.reduce)), torch.empty_like(squeezed)
    assert weights.expand is not None and weights.expand_bias is not None and weights.reduce_bias is not None
    some = images_per_tile(tile, pixels)
    buffer = tile_buffer(depthwise, some * pixels)
    by_rows, by_images = split_rows(some * pixels, depthwise, projected), split_rows(some, squeezed, reduced, gate)
    for (values, outputs), (means, before, gates) in zip(by_rows, by_images, strict=True):
        activated = buffer[: len(values)]
        normalize_and_activate(values, mean, scale, activated, relu)
        image_means(activated, means)
        torch.addmm(weights.reduce_bias, means, weights.reduce.flatten(1).t(), out=before)
        hidden = torch.empty_like(before)
        activate(before, hidden, relu)
        torch.addmm(weights.expand_bias, hidden, weights.expand.flatten(1).t(), out=gates)
        gates.sigmoid_()
        excite(activated, gates)
        torch.mm(activated, across, out=outputs)
    return squeezed, reduced, gate
