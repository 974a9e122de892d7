"""Both passes of an MBConv with batch statistics, for processors with caches.

On a CPU most of a search step's time is not arithmetic: expanded feature maps go to memory and back some ten times per
operation, for batch statistics, normalising and activation, and all of them are kept for the backward pass. Here

* the expansion's batch norm is folded into its weights. A 1x1 convolution's batch statistics follow from mean and
  covariance of its input, which all operations of a block share: var(w x) = w cov(x) w^T. Its backward pass is folded
  in the same way, into matrices of the input's few channels, whose sum over a block's operations is applied once.
  Where a block's input has few pixels and many channels, the expanded map is less than these, and is kept;
* some images at a time go through expansion, activation and depthwise convolution, and back: their expanded maps,
  the largest ones, stay near and never exist whole. The backward pass computes them again, which takes no longer than
  fetching them would;
* what is pointwise runs over a few rows (pixels x channels) at a time, from the convolution through activation to the
  next product, as much of it in one pass as can be (`arithmetic.py`). Only outputs of depthwise convolution and
  projection are kept for the backward pass, normalised.

Rows are channels-last pixels: a map (N, C, H, W) is a matrix (N * H * W, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tfnas.supernet.arithmetic import (
    activate,
    activate_maps,
    activation_gradient,
    column_sums,
    excitation_gradient,
    excite,
    gate_gradient,
    image_means,
    no_sums,
    normalization_gradient,
    normalize,
    normalize_and_activate,
    statistics,
)
from tfnas.supernet.crew import sum_of_known
from tfnas.supernet.kernels import kernel_gradient, room_for
from tfnas.supernet.rows import buffer_of, maps_of, rows_of, tile_rows, tiles, whole_images

_aten = torch.ops.aten


class Moments(NamedTuple):
    """Covariance (C, C) of a map's channels over images and pixels, and its rows (N * H * W, C) less their mean.

    No covariance where there are so few pixels that batch norm is less work on expanded rows than on their weights.
    """

    covariance: Tensor | None
    centred: Tensor


class Kind(NamedTuple):
    """What of an operation is not a tensor."""

    stride: int
    activation: str
    eps: float
    out_channels: int


class Weights(NamedTuple):
    """Weights of the active channels (M): expansion (M, in, 1, 1), depthwise (M, 1, k, k), projection (out, M, 1, 1).

    Squeeze-and-excite is `reduce` (S, M, 1, 1) and `expand` (M, S, 1, 1) with their biases. None: not there.
    """

    expansion: Tensor | None
    depthwise: Tensor
    projection: Tensor
    reduce: Tensor | None = None
    reduce_bias: Tensor | None = None
    expand: Tensor | None = None
    expand_bias: Tensor | None = None


def input_moments(features: Tensor) -> Moments:
    """Moments of a block's input (N, C, H, W), for all of its operations; no gradient passes through them."""
    rows = rows_of(features.detach())
    centred = rows - rows.mean(0)
    pixels, channels = rows.shape
    few = pixels < channels**2 / 10 + 4 * channels  # measured
    return Moments(None if few else centred.t() @ centred / pixels, centred)


class Kept(NamedTuple):
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


class Sent(NamedTuple):
    """What an operation sends back: to its input's rows x, less their mean, `rows` - x @ `matrix` - `shift`.

    So what batch norm of the expansion takes away is taken from the sum over a block's operations, once.
    """

    rows: Tensor
    matrix: Tensor | None  # (in, in); with shift None where nothing is expanded
    shift: Tensor | None  # (in)
    to_scalar: Tensor  # the sum over gradient times output


def arrive(rows: Tensor, sent: Sequence[Sent], features: Tensor, moments: Moments | None) -> Tensor:
    """The gradient of the features from what operations sent: `rows`, whose memory it takes, is the sum of theirs."""
    matrix, shift = sum_of_known([one.matrix for one in sent]), sum_of_known([one.shift for one in sent])
    if matrix is not None and shift is not None and moments is not None:
        rows.addmm_(moments.centred, matrix, alpha=-1).sub_(shift)
    return maps_of(rows, len(features), *features.shape[2:])


def forward_pass(
    features: Tensor, moments: Moments | None, weights: Weights, kind: Kind, into: Tensor | None = None
) -> Kept:
    """Of one operation for its block's input (N, in, H, W); its output is `projected` of what is kept.

    The output's rows are written `into` a matrix, if one is given.
    """
    images = len(features)
    relu = kind.activation == "relu"
    scale = folded = expanded = None
    if weights.expansion is None:
        maps = _convolve(features, weights.depthwise, kind.stride)
    else:
        assert moments is not None
        plain = weights.expansion.flatten(1)
        if moments.covariance is None:
            maps, scale, expanded = _expand_few(features, moments.centred, plain, weights.depthwise, kind)
        else:
            variance = ((plain @ moments.covariance) * plain).sum(1).clamp_min(0)
            scale = (variance + kind.eps).rsqrt()
            folded = plain * scale[:, None]
            maps = _expand(features, moments.centred, folded, weights.depthwise, kind)
    depthwise = rows_of(maps)
    mean, depthwise_scale = statistics(depthwise, kind.eps)
    projected = features.new_empty(len(depthwise), kind.out_channels) if into is None else into
    gates = _project(depthwise, mean, depthwise_scale, projected, images, relu, weights)
    mean, projected_scale = statistics(projected, kind.eps)
    normalize(projected, mean, projected_scale)
    output = maps_of(projected, images, *maps.shape[2:])
    return Kept(scale, folded, expanded, depthwise_scale, depthwise, projected_scale, output, *gates)


def _expand_few(
    features: Tensor, centred: Tensor, plain: Tensor, kernel: Tensor, kind: Kind
) -> tuple[Tensor, Tensor, Tensor]:
    """Few rows through expansion, batch norm, activation and depthwise convolution; also scale and normalised rows."""
    expanded = centred @ plain.t()
    mean, scale = statistics(expanded, kind.eps)
    activated = torch.empty_like(expanded)
    normalize_and_activate(expanded, mean, scale, activated, kind.activation == "relu")
    maps = _convolve(maps_of(activated, len(features), *features.shape[2:]), kernel, kind.stride)
    return maps, scale, expanded


def _expand(features: Tensor, centred: Tensor, folded: Tensor, kernel: Tensor, kind: Kind) -> Tensor:
    """Rows through expansion, batch norm, activation and depthwise convolution, some images at a time."""
    height, width = features.shape[2:]
    some, buffer = _expanded_at_a_time(features, len(folded))
    found: list[Tensor] = []
    for inputs in torch.split(centred, some * height * width):
        expanded = torch.mm(inputs, folded.t(), out=buffer[: inputs.shape[0]])
        activate(expanded, expanded, kind.activation == "relu")
        found.append(_convolve(maps_of(expanded, -1, height, width), kernel, kind.stride))
    return found[0] if len(found) == 1 else torch.cat(found)


def _expanded_at_a_time(features: Tensor, channels: int) -> tuple[int, Tensor]:
    """How many images of these (N, in, H, W) are near when they are expanded, and room for their rows then."""
    images, _, height, width = features.shape
    some = whole_images(tile_rows(features, channels), height * width)
    return some, features.new_empty(min(some, images) * height * width, channels)


def _convolve(maps: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """A depthwise convolution."""
    return functional.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=len(kernel))


def _project(
    depthwise: Tensor, mean: Tensor, scale: Tensor, projected: Tensor, images: int, relu: bool, weights: Weights
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Rows normalised in place, activated, excited and projected, into `projected`; returns what SE computed."""
    across, tile = weights.projection.flatten(1).t(), tile_rows(depthwise, depthwise.shape[1])
    if weights.reduce is None:
        buffer = buffer_of(depthwise, tile)
        for values, outputs in tiles(tile, depthwise, projected):
            activated = buffer[: len(values)]
            normalize_and_activate(values, mean, scale, activated, relu)
            torch.mm(activated, across, out=outputs)
        return None, None, None
    pixels, channels = len(depthwise) // images, depthwise.shape[1]
    squeezed = depthwise.new_empty(images, channels)
    reduced, gate = depthwise.new_empty(images, len(weights.reduce)), torch.empty_like(squeezed)
    assert weights.expand is not None and weights.expand_bias is not None and weights.reduce_bias is not None
    some = whole_images(tile, pixels)
    buffer = buffer_of(depthwise, some * pixels)
    by_rows, by_images = tiles(some * pixels, depthwise, projected), tiles(some, squeezed, reduced, gate)
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


class BackwardPass:
    """The backward pass of one operation; `weighs`: whether the weights' gradients are asked for."""

    def __init__(
        self, features: Tensor, moments: Moments | None, weights: Weights, kind: Kind, kept: Kept, weighs: bool
    ) -> None:
        self.features, self.moments, self.weights, self.kind = features, moments, weights, kind
        self.kept, self.weighs = kept, weighs
        self.relu = kind.activation == "relu"
        self.tile = tile_rows(features, len(weights.depthwise))
        self.gradients = Weights._make(torch.zeros_like(w) if weighs and w is not None else None for w in weights)

    def run(self, gradient: Tensor, scalar: Tensor | None, into: Tensor | None = None) -> Sent:
        """What goes back to the features from the gradient of the output times `scalar` (None: one).

        Its rows are written `into` a matrix, if one is given.
        """
        kept, images = self.kept, len(self.features)
        scale = kept.projected_scale if scalar is None else kept.projected_scale * scalar
        arriving, outputs = rows_of(gradient), rows_of(kept.projected)
        sums = column_sums(arriving, outputs)
        to_scalar = sums[1].sum().to(gradient.dtype)
        projected = torch.empty_like(arriving)
        normalization_gradient(arriving, outputs, scale, sums, projected, len(outputs))
        sums = no_sums(kept.depthwise)
        through = self._through_projection if kept.gate is None else self._through_excitation
        rows = through(projected, sums)
        if kept.expansion_scale is None:
            self._through_depthwise_norm(rows, sums)
            maps = maps_of(rows, images, *gradient.shape[2:])
            rows = rows_of(self._through_depthwise(maps, self.features, activates=False))
            return Sent(rows if into is None else into.copy_(rows), None, None, to_scalar)
        into = torch.empty_like(rows_of(self.features)) if into is None else into
        if kept.expanded is None:
            return Sent(into, *self._through_folded(rows, sums, gradient.shape, into), to_scalar)
        self._through_depthwise_norm(rows, sums)
        self._through_expanded(maps_of(rows, images, *gradient.shape[2:]), kept.expanded, into)
        return Sent(into, None, None, to_scalar)

    def _through_depthwise_norm(self, rows: Tensor, sums: Tensor) -> None:
        """In place; the `sums` are of rows and normalised output."""
        normalization_gradient(rows, self.kept.depthwise, self.kept.depthwise_scale, sums, rows, len(rows))

    def _through_projection(self, projected: Tensor, sums: Tensor) -> Tensor:
        """Rows from the projection's output to the depthwise batch norm's; adds their sums with what is there."""
        found = torch.empty_like(self.kept.depthwise)
        kernel, to_kernel = self.weights.projection.flatten(1), self.gradients.projection
        buffer = buffer_of(found, self.tile)
        for arriving, values, target in tiles(self.tile, projected, self.kept.depthwise, found):
            scratch = buffer[: len(values)]
            if self.weighs:
                activate(values, scratch, self.relu)
                to_kernel.view(len(to_kernel), -1).addmm_(arriving.t(), scratch)
            torch.mm(arriving, kernel, out=scratch)
            activation_gradient(scratch, values, target, self.relu, sums)
        return found

    def _through_excitation(self, projected: Tensor, sums: Tensor) -> Tensor:
        """The same with squeeze-and-excite between: whole images at a time, as the gate sums over their pixels."""
        kept, kernel, to_kernel = self.kept, self.weights.projection.flatten(1), self.gradients.projection
        assert kept.gate is not None and kept.squeezed is not None and kept.reduced is not None
        found = torch.empty_like(kept.depthwise)
        pixels = len(found) // len(kept.gate)
        some = whole_images(self.tile, pixels)
        buffer = buffer_of(found, some * pixels)
        by_rows = tiles(some * pixels, projected, kept.depthwise, found)
        by_images = tiles(some, kept.gate, kept.squeezed, kept.reduced)
        for (arriving, values, target), (gates, means, reduced) in zip(by_rows, by_images, strict=True):
            scratch = buffer[: len(values)]
            if self.weighs:
                activate(values, target, self.relu)
                excite(target, gates)
                to_kernel.view(len(to_kernel), -1).addmm_(arriving.t(), target)
            torch.mm(arriving, kernel, out=scratch)
            to_gates = gate_gradient(scratch, values, gates, self.relu)
            to_means = self._through_gate(to_gates, gates, means, reduced)
            excitation_gradient(scratch, values, gates, to_means / pixels, target, self.relu, sums)
        return found

    def _through_gate(self, gradient: Tensor, gates: Tensor, means: Tensor, reduced: Tensor) -> Tensor:
        """From the gates of some images to their means over pixels."""
        weights, found = self.weights, self.gradients
        assert weights.reduce is not None and weights.expand is not None
        gradient = gradient * gates * (1 - gates)
        to_hidden = gradient @ weights.expand.flatten(1)
        to_reduced = torch.empty_like(to_hidden)
        activation_gradient(to_hidden, reduced, to_reduced, self.relu, no_sums(reduced))
        if self.weighs:
            assert found.reduce is not None and found.expand is not None
            assert found.reduce_bias is not None and found.expand_bias is not None
            hidden = torch.empty_like(reduced)
            activate(reduced, hidden, self.relu)
            found.expand.view(len(found.expand), -1).addmm_(gradient.t(), hidden)
            found.expand_bias.add_(gradient.sum(0))
            found.reduce.view(len(found.reduce), -1).addmm_(to_reduced.t(), means)
            found.reduce_bias.add_(to_reduced.sum(0))
        return to_reduced @ weights.reduce.flatten(1)

    def _through_depthwise(self, gradient: Tensor, values: Tensor, activates: bool) -> Tensor:
        """From the depthwise convolution's output to its input, some or all images of both.

        `values` is the input, or what comes before it where that `activates`.
        """
        weight, stride = self.weights.depthwise, self.kind.stride
        padding = weight.shape[-1] // 2
        if self.weighs:
            room = room_for(gradient, values, weight.shape[-1], fills=not activates)
            if activates:
                activate_maps(rows_of(values), room.maps, self.relu)
            self.gradients.depthwise.add_(kernel_gradient(gradient, room, weight, stride))
        steps, paddings = [stride, stride], [padding, padding]
        only_input, groups = [True, False, False], len(weight)
        found: Tensor = _aten.convolution_backward(
            gradient, values, weight, None, steps, paddings, [1, 1], False, [0, 0], groups, only_input
        )[0]  # of the values, it looks at the shape
        return found

    def _through_expanded(self, gradient: Tensor, expanded: Tensor, found: Tensor) -> None:
        """From the depthwise convolution back through it, activation, batch norm and expansion: rows into `found`."""
        weight, scale = self.weights.expansion, self.kept.expansion_scale
        assert self.moments is not None and weight is not None and scale is not None
        maps, sums = maps_of(expanded, *(self.features.shape[place] for place in (0, 2, 3))), no_sums(expanded)
        rows = rows_of(self._through_depthwise(gradient, maps, activates=True))
        activation_gradient(rows, expanded, rows, self.relu, sums)
        normalization_gradient(rows, expanded, scale, sums, rows, len(rows))
        if self.gradients.expansion is not None:
            torch.mm(rows.t(), self.moments.centred, out=self.gradients.expansion.flatten(1))
        torch.mm(rows, weight.flatten(1), out=found)

    def _through_folded(
        self, gradient: Tensor, sums: Tensor, shape: torch.Size, found: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same with what comes after, the depthwise batch norm, whose `sums` are known, some images at a time.

        Returns matrix and shift of `Sent`. The batch norm folded into the expansion sends back scale * (g - mean(g) -
        z * mean(g z)), z being its output; z = folded (x - mean(x)) makes the last term a product with the centred
        features.
        """
        kept, folded = self.kept, self.kept.folded
        assert self.moments is not None and folded is not None and kept.expansion_scale is not None
        covariance, centred = self.moments
        assert covariance is not None
        height, width = self.features.shape[2:]
        some, buffer = _expanded_at_a_time(self.features, len(folded))
        expanded_sums = no_sums(buffer)
        products = None if self.gradients.expansion is None else self.gradients.expansion.flatten(1)
        by_outputs = tiles(some * shape[2] * shape[3], gradient, kept.depthwise)
        by_inputs = tiles(some * height * width, centred, found)
        for (arriving, outputs), (inputs, target) in zip(by_outputs, by_inputs, strict=True):
            normalization_gradient(arriving, outputs, kept.depthwise_scale, sums, arriving, len(gradient))
            normalized = torch.mm(inputs, folded.t(), out=buffer[: len(inputs)])
            maps = maps_of(normalized, -1, height, width)
            rows = rows_of(self._through_depthwise(maps_of(arriving, -1, *shape[2:]), maps, activates=True))
            activation_gradient(rows, normalized, rows, self.relu, expanded_sums)
            if products is not None:
                products.addmm_(rows.t(), inputs)
            torch.mm(rows, folded, out=target)
        total, slope = expanded_sums.to(folded.dtype)
        if products is not None:
            products.addcmul_(slope[:, None], folded @ covariance, value=-1).mul_(kept.expansion_scale[:, None])
        pixels = len(centred)
        return folded.t() @ (folded * (slope / pixels)[:, None]), (total / pixels) @ folded
