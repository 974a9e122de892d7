"""The backward pass of an MBConv, as `mbconv_forward` computes it, and gradients of depthwise kernels.

Measured with torch 2.15 (oneDNN): the gradient of a 5x5 kernel takes ten times that of 3x3, while 5 rows by 3 columns
take little longer than 3x3. So 5x5 comes from two of these, the second on the same numbers two columns further on. On
maps of 4x4 both are slow; there it comes from the products of every pixel of one map with every pixel of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tfnas.nn.blocks import MBConvWeights, to_maps, to_rows
from tfnas.supernet.cpu.mbconv_forward import MBConvSpec, Moments, SavedTensors, expanded_tile
from tfnas.supernet.cpu.row_ops import (
    activate,
    activate_to_maps,
    activation_gradient,
    column_sums,
    excitation_gradient,
    excite,
    gate_gradient,
    images_per_tile,
    normalization_gradient,
    rows_per_tile,
    split_rows,
    tile_buffer,
    zero_sums,
)

_aten: Any = torch.ops.aten
_SLOW, _COLUMNS = 5, 3
_PADDING = _SLOW - _COLUMNS
FEW_PAIRS = 6**4  # of an input and an output pixel: maps of 6x6, or from 8x8 to 4x4


class InputGradient(NamedTuple):
    """The gradient of an operation's input rows x, less their mean: `rows` - x @ `matrix` - `shift`.

    So what batch norm of the expansion subtracts is subtracted from the sum over a block's operations, once.
    """

    rows: Tensor
    matrix: Tensor | None  # (in, in); with shift None where nothing is expanded
    shift: Tensor | None  # (in)
    scalar_grad: Tensor  # the sum over gradient times output


def accumulate_input_grad(
    rows: Tensor, parts: Sequence[InputGradient], features: Tensor, moments: Moments | None
) -> Tensor:
    """The gradient of the features: `rows`, which this overwrites, is the sum of those of the parts."""
    matrix, shift = _sum_present([part.matrix for part in parts]), _sum_present([part.shift for part in parts])
    if matrix is not None and shift is not None and moments is not None:
        rows.addmm_(moments.centred, matrix, alpha=-1).sub_(shift)
    return to_maps(rows, len(features), *features.shape[2:])


def _sum_present(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of those that are not None; None where there is none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return sum(present[1:], present[0]) if present else None


class BackwardPass:
    """The backward pass of one operation; `needs_weights`: whether gradients of its weights are asked for."""

    def __init__(
        self,
        features: Tensor,
        moments: Moments | None,
        weights: MBConvWeights,
        spec: MBConvSpec,
        saved: SavedTensors,
        needs_weights: bool,
    ) -> None:
        self.features, self.moments, self.weights, self.spec = features, moments, weights, spec
        self.saved, self.needs_weights = saved, needs_weights
        self.relu = spec.relu
        self.tile = rows_per_tile(features, len(weights.depthwise))
        self.gradients = MBConvWeights._make(
            torch.zeros_like(weight) if needs_weights and weight is not None else None for weight in weights
        )

    def run(self, gradient: Tensor, scalar: Tensor | None, out: Tensor | None = None) -> InputGradient:
        """The gradient of the features from the gradient of the output times `scalar` (None: one).

        Its rows are written to the matrix `out`, if one is given.
        """
        saved, images = self.saved, len(self.features)
        scale = saved.projected_scale if scalar is None else saved.projected_scale * scalar
        incoming, outputs = to_rows(gradient), to_rows(saved.projected)
        sums = column_sums(incoming, outputs)
        scalar_grad = sums[1].sum().to(gradient.dtype)
        projected = torch.empty_like(incoming)
        normalization_gradient(incoming, outputs, scale, sums, projected, len(outputs))
        sums = zero_sums(saved.depthwise)
        through = self._through_projection if saved.gate is None else self._through_excitation
        rows = through(projected, sums)
        if saved.expansion_scale is None:
            self._through_depthwise_norm(rows, sums)
            maps = to_maps(rows, images, *gradient.shape[2:])
            rows = to_rows(self._through_depthwise(maps, self.features, activates=False))
            return InputGradient(rows if out is None else out.copy_(rows), None, None, scalar_grad)
        out = torch.empty_like(to_rows(self.features)) if out is None else out
        if saved.expanded is None:
            return InputGradient(out, *self._through_folded(rows, sums, gradient.shape, out), scalar_grad)
        self._through_depthwise_norm(rows, sums)
        self._through_expanded(to_maps(rows, images, *gradient.shape[2:]), saved.expanded, out)
        return InputGradient(out, None, None, scalar_grad)

    def _through_depthwise_norm(self, rows: Tensor, sums: Tensor) -> None:
        """In place; the `sums` are of rows and normalised output."""
        normalization_gradient(rows, self.saved.depthwise, self.saved.depthwise_scale, sums, rows, len(rows))

    def _through_projection(self, projected: Tensor, sums: Tensor) -> Tensor:
        """Rows from the projection's output to the depthwise batch norm's; adds their sums with what is there."""
        found = torch.empty_like(self.saved.depthwise)
        kernel, to_kernel = self.weights.projection.flatten(1), self.gradients.projection
        buffer = tile_buffer(found, self.tile)
        for incoming, values, target in split_rows(self.tile, projected, self.saved.depthwise, found):
            scratch = buffer[: len(values)]
            if self.needs_weights:
                activate(values, scratch, self.relu)
                to_kernel.view(len(to_kernel), -1).addmm_(incoming.t(), scratch)
            torch.mm(incoming, kernel, out=scratch)
            activation_gradient(scratch, values, target, self.relu, sums)
        return found

    def _through_excitation(self, projected: Tensor, sums: Tensor) -> Tensor:
        """The same with squeeze-and-excite between: whole images at a time, as the gate sums over their pixels."""
        saved, kernel, to_kernel = self.saved, self.weights.projection.flatten(1), self.gradients.projection
        assert saved.gate is not None and saved.squeezed is not None and saved.reduced is not None
        found = torch.empty_like(saved.depthwise)
        pixels = len(found) // len(saved.gate)
        some = images_per_tile(self.tile, pixels)
        buffer = tile_buffer(found, some * pixels)
        by_rows = split_rows(some * pixels, projected, saved.depthwise, found)
        by_images = split_rows(some, saved.gate, saved.squeezed, saved.reduced)
        for (incoming, values, target), (gates, means, reduced) in zip(by_rows, by_images, strict=True):
            scratch = buffer[: len(values)]
            if self.needs_weights:
                activate(values, target, self.relu)
                excite(target, gates)
                to_kernel.view(len(to_kernel), -1).addmm_(incoming.t(), target)
            torch.mm(incoming, kernel, out=scratch)
            to_gates = gate_gradient(scratch, values, gates, self.relu)
            to_means = self._through_gate(to_gates, gates, means, reduced)
            excitation_gradient(scratch, values, gates, to_means / pixels, target, self.relu, sums)
        return found

    def _through_gate(self, gradient: Tensor, gates: Tensor, means: Tensor, reduced: Tensor) -> Tensor:
        """From the gates of some images to their means over pixels."""
        weights, gradients = self.weights, self.gradients
        assert weights.reduce is not None and weights.expand is not None
        gradient = gradient * gates * (1 - gates)
        to_hidden = gradient @ weights.expand.flatten(1)
        to_reduced = torch.empty_like(to_hidden)
        activation_gradient(to_hidden, reduced, to_reduced, self.relu, zero_sums(reduced))
        if self.needs_weights:
            assert gradients.reduce is not None and gradients.expand is not None
            assert gradients.reduce_bias is not None and gradients.expand_bias is not None
            hidden = torch.empty_like(reduced)
            activate(reduced, hidden, self.relu)
            gradients.expand.view(len(gradients.expand), -1).addmm_(gradient.t(), hidden)
            gradients.expand_bias.add_(gradient.sum(0))
            gradients.reduce.view(len(gradients.reduce), -1).addmm_(to_reduced.t(), means)
            gradients.reduce_bias.add_(to_reduced.sum(0))
        return to_reduced @ weights.reduce.flatten(1)

    def _through_depthwise(self, gradient: Tensor, values: Tensor, activates: bool) -> Tensor:
        """From the depthwise convolution's output to its input, some or all images of both.

        `values` is the input, or what comes before it where that `activates`.
        """
        weight, stride = self.weights.depthwise, self.spec.stride
        padding = weight.shape[-1] // 2
        if self.needs_weights:
            workspace = make_workspace(gradient, values, weight.shape[-1], copy=not activates)
            if activates:
                activate_to_maps(to_rows(values), workspace.maps, self.relu)
            self.gradients.depthwise.add_(kernel_gradient(gradient, workspace, weight, stride))
        steps, paddings = [stride, stride], [padding, padding]
        only_input, groups = [True, False, False], len(weight)
        to_input: Tensor = _aten.convolution_backward(
            gradient, values, weight, None, steps, paddings, [1, 1], False, [0, 0], groups, only_input
        )[0]  # of the values, it looks at the shape
        return to_input

    def _through_expanded(self, gradient: Tensor, expanded: Tensor, out: Tensor) -> None:
        """From the depthwise convolution back through it, activation, batch norm and expansion: rows to `out`."""
        weight, scale = self.weights.expansion, self.saved.expansion_scale
        assert self.moments is not None and weight is not None and scale is not None
        maps, sums = to_maps(expanded, *(self.features.shape[place] for place in (0, 2, 3))), zero_sums(expanded)
        rows = to_rows(self._through_depthwise(gradient, maps, activates=True))
        activation_gradient(rows, expanded, rows, self.relu, sums)
        normalization_gradient(rows, expanded, scale, sums, rows, len(rows))
        if self.gradients.expansion is not None:
            torch.mm(rows.t(), self.moments.centred, out=self.gradients.expansion.flatten(1))
        torch.mm(rows, weight.flatten(1), out=out)

    def _through_folded(self, gradient: Tensor, sums: Tensor, shape: torch.Size, out: Tensor) -> tuple[Tensor, Tensor]:
        """The same with what comes after, the depthwise batch norm, whose `sums` are known, some images at a time.

        Returns matrix and shift of `InputGradient`. The gradient of the batch norm folded into the expansion is
        scale * (g - mean(g) - z * mean(g z)), z being its output; z = folded (x - mean(x)) makes the last term a
        product with the centred features.
        """
        saved, folded = self.saved, self.saved.folded
        assert self.moments is not None and folded is not None and saved.expansion_scale is not None
        covariance, centred = self.moments
        assert covariance is not None
        height, width = self.features.shape[2:]
        some, buffer = expanded_tile(self.features, len(folded))
        expanded_sums = zero_sums(buffer)
        products = None if self.gradients.expansion is None else self.gradients.expansion.flatten(1)
        by_outputs = split_rows(some * shape[2] * shape[3], gradient, saved.depthwise)
        by_inputs = split_rows(some * height * width, centred, out)
        for (incoming, outputs), (inputs, target) in zip(by_outputs, by_inputs, strict=True):
            normalization_gradient(incoming, outputs, saved.depthwise_scale, sums, incoming, len(gradient))
            normalized = torch.mm(inputs, folded.t(), out=buffer[: len(inputs)])
            maps = to_maps(normalized, -1, height, width)
            rows = to_rows(self._through_depthwise(to_maps(incoming, -1, *shape[2:]), maps, activates=True))
            activation_gradient(rows, normalized, rows, self.relu, expanded_sums)
            if products is not None:
                products.addmm_(rows.t(), inputs)
            torch.mm(rows, folded, out=target)
        total, slope = expanded_sums.to(folded.dtype)
        if products is not None:
            products.addcmul_(slope[:, None], folded @ covariance, value=-1).mul_(saved.expansion_scale[:, None])
        pixels = len(centred)
        return folded.t() @ (folded * (slope / pixels)[:, None]), (total / pixels) @ folded


# ---- gradients of depthwise kernels ------------------------------------------------------------------------------


class Workspace(NamedTuple):
    """Memory for the input of `kernel_gradient`, laid out so that it need not be copied again.

    `maps` (N, C, H, W) are to be written, channels last in memory. `padded` (N * H * (W + 2) + 2, C), if there, holds
    them in rows of two more columns, with zeros before the first column and after the last row.
    """

    maps: Tensor
    padded: Tensor | None


def make_workspace(gradient: Tensor, features: Tensor, size: int, copy: bool) -> Workspace:
    """For an input shaped like `features` (N, C, H, W) and the gradient of the output of a kernel of that size.

    With `copy` it holds the features; without, the caller writes its maps.
    """
    images, channels, height, width = features.shape
    if size != _SLOW or height * width * gradient.shape[2] * gradient.shape[3] <= FEW_PAIRS:
        return Workspace(features if copy else torch.empty_like(features), None)
    padded = features.new_empty(images * height * (width + _PADDING) + _PADDING, channels)
    padded[-_PADDING:] = 0
    inside = padded[:-_PADDING].view(images, height, width + _PADDING, channels)
    inside[:, :, :_PADDING] = 0
    workspace = Workspace(inside[:, :, _PADDING:].permute(0, 3, 1, 2), padded)
    if copy:
        workspace.maps.copy_(features)
    return workspace


def kernel_gradient(gradient: Tensor, workspace: Workspace, weight: Tensor, stride: int) -> Tensor:
    """Of a depthwise convolution (padding k // 2): the gradient (C, 1, k, k) of its weight, for odd k.

    `gradient` (N, C, H', W') is that of its output, channels last; its input is in the workspace made for it.
    """
    size, features = weight.shape[-1], workspace.maps
    if workspace.padded is not None:
        return _from_two_halves(gradient, workspace.padded, features.shape, stride)
    if size == _SLOW:
        return _from_pixel_pairs(gradient, features, size, stride)
    return _library_gradient(gradient, features, weight, stride, [size // 2, size // 2])


def _library_gradient(gradient: Tensor, features: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    steps, only_weight, groups = [stride, stride], [False, True, False], len(weight)
    to_weight: Tensor = _aten.convolution_backward(
        gradient, features, weight, None, steps, padding, [1, 1], False, [0, 0], groups, only_weight
    )[1]
    return to_weight


def _from_two_halves(gradient: Tensor, padded: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """A kernel of 3 columns meets, for output column w, columns stride * w - 2, -1, 0 of the features, as they lie in
    rows with two zeros before; and 0, 1, 2 where these are read from two columns further on.
    """
    images, channels, height, width = shape
    kernel = gradient.new_empty(channels, 1, _SLOW, _COLUMNS)
    left, right = (
        _library_gradient(
            gradient, rows.view(images, height, width + _PADDING, channels).permute(0, 3, 1, 2), kernel, stride, [2, 0]
        )
        for rows in (padded[:-_PADDING], padded[_PADDING:])
    )
    return torch.cat((left, right[..., 1:]), 3)


def _from_pixel_pairs(gradient: Tensor, features: Tensor, size: int, stride: int) -> Tensor:
    """Products of all pairs of pixels, summed over images; then over the pairs that meet in an entry of the kernel."""
    images, channels = features.shape[:2]
    of_outputs = gradient.permute(1, 0, 2, 3).reshape(channels, images, -1).contiguous()
    of_inputs = features.permute(1, 0, 2, 3).reshape(channels, images, -1).contiguous()
    products = torch.bmm(of_outputs.transpose(1, 2), of_inputs).flatten(1)
    tap_of_pairs = _tap_of_pairs(tuple(gradient.shape[2:]), tuple(features.shape[2:]), size, stride)
    return (products @ tap_of_pairs.to(products)).view(channels, 1, size, size)


@cache
def _tap_of_pairs(outputs: tuple[int, ...], inputs: tuple[int, ...], size: int, stride: int) -> Tensor:
    """1 where two pixels meet in an entry of the kernel, else 0 (pairs of an output and an input, entries)."""

    def along(outputs: int, inputs: int) -> Tensor:
        met = stride * torch.arange(outputs)[:, None] + torch.arange(size) - size // 2
        return (met[..., None] == torch.arange(inputs)).float()

    down, across = map(along, outputs, inputs)
    return torch.einsum("hiy,wjx->hwyxij", down, across).reshape(-1, size * size)
