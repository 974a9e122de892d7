"""What is computed on rows (pixels x channels) beside products: activation, batch norm, squeeze-and-excite, both ways.

Each is one pass of a compiled loop where there is one (`loops.py`), else some of PyTorch's operators. Next to nothing
asks for new memory. Sums over rows are float64.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tfnas.supernet.loops import loop_for
from tfnas.supernet.rows import maps_of

_aten = torch.ops.aten


def activate(values: Tensor, into: Tensor, relu: bool) -> None:
    """ReLU or swish."""
    if loop := loop_for("activate", values, into):
        rows, numbers = len(values), values.numel() // len(values)
        loop(relu, values.data_ptr(), into.data_ptr(), rows, numbers, numbers)
    elif relu:
        torch.clamp_min(values, 0, out=into)
    else:
        _aten.silu.out(values, out=into)


def activate_maps(rows: Tensor, into: Tensor, relu: bool) -> None:
    """Rows `into` a map (N, C, H, W), channels last, in whose memory there may be gaps between rows of pixels."""
    images, channels, height, width = into.shape
    step = into.stride(2)
    if into.stride() == (height * step, 1, step, channels) and (loop := loop_for("activate", rows)):
        loop(relu, rows.data_ptr(), into.data_ptr(), images * height, width * channels, step)
    else:
        activate(maps_of(rows, images, height, width), into, relu)


def activation_gradient(gradient: Tensor, values: Tensor, into: Tensor, relu: bool, sums: Tensor) -> None:
    """Back through ReLU or swish; `into` may be the gradient. Adds what `column_sums` gives of it and the values."""
    if loop := loop_for("activation_gradient", gradient, values, into):
        places = gradient.data_ptr(), values.data_ptr(), into.data_ptr(), sums.data_ptr()
        loop(relu, *places, *values.shape)
        return
    if relu:
        _aten.threshold_backward.grad_input(gradient, values, 0, grad_input=into)
    else:
        _aten.silu_backward.grad_input(gradient, values, grad_input=into)
    sums.add_(column_sums(into, values))


def no_sums(like: Tensor) -> Tensor:
    """Room for sums of the columns of a matrix: (2, columns), zeros, float64."""
    return like.new_zeros(2, like.shape[1], dtype=torch.float64)


def column_sums(gradient: Tensor, values: Tensor) -> Tensor:
    """Sums over the rows of the gradient, and of gradient times values: (2, columns), float64."""
    if loop := loop_for("column_sums", gradient, values):
        sums = no_sums(gradient)
        loop(gradient.data_ptr(), values.data_ptr(), sums.data_ptr(), *gradient.shape)
        return sums
    # one pass over both: what batch norm's weights get
    maps, factors = (maps_of(matrix, 1, len(matrix), 1) for matrix in (gradient, values))
    zeros, ones = _mean_and_scale(gradient.shape[1], gradient.dtype)
    wanted = [False, True, True]
    _, products, totals = _aten.native_batch_norm_backward(
        maps, factors, ones, None, None, zeros, ones, True, 0.0, wanted
    )
    return torch.stack((totals, products)).double()


@lru_cache(maxsize=1024)
def _mean_and_scale(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of channels that are normalised: zeros and ones, not to be written."""
    return torch.zeros(channels, dtype=dtype), torch.ones(channels, dtype=dtype)


def statistics(rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of the columns."""
    if loop := loop_for("statistics", rows):
        sums, mean, scale = no_sums(rows), rows.new_empty(rows.shape[1]), rows.new_empty(rows.shape[1])
        loop(rows.data_ptr(), float(eps), sums.data_ptr(), mean.data_ptr(), scale.data_ptr(), *rows.shape)
        return mean, scale
    mean, variance = _aten.batch_norm_update_stats(maps_of(rows, 1, len(rows), 1), None, None, 0.0)
    return mean, (variance + eps).rsqrt()


def normalize(rows: Tensor, mean: Tensor, scale: Tensor) -> None:
    """In place."""
    if loop := loop_for("normalize", rows):
        loop(rows.data_ptr(), mean.data_ptr(), scale.data_ptr(), *rows.shape)
    else:
        rows.sub_(mean).mul_(scale)


def normalize_and_activate(rows: Tensor, mean: Tensor, scale: Tensor, into: Tensor, relu: bool) -> None:
    """Rows normalised in place, and these activated `into` another matrix."""
    if loop := loop_for("normalize_and_activate", rows, into):
        places = rows.data_ptr(), mean.data_ptr(), scale.data_ptr(), into.data_ptr()
        loop(relu, *places, *rows.shape)
        return
    normalize(rows, mean, scale)
    activate(rows, into, relu)


def normalization_gradient(
    gradient: Tensor, normalized: Tensor, scale: Tensor, sums: Tensor, into: Tensor, count: int
) -> None:
    """Back through batch statistics from their output; `into` may be the gradient.

    `sums` are what `column_sums` gives of all `count` rows, of which these may be some.
    """
    if loop := loop_for("normalization_gradient", gradient, normalized, into):
        places = gradient.data_ptr(), normalized.data_ptr(), scale.data_ptr(), sums.data_ptr()
        loop(*places, count, into.data_ptr(), *gradient.shape)
        return
    mean, slope = (sums / count).to(gradient.dtype)
    torch.addcmul(gradient, normalized, slope, value=-1, out=into).sub_(mean).mul_(scale)


def image_means(rows: Tensor, into: Tensor) -> None:
    """Means over the pixels of each image: rows (images * pixels, C), `into` (images, C)."""
    if loop := loop_for("image_means", rows, into):
        loop(rows.data_ptr(), into.data_ptr(), *_by_image(rows, into).shape)
    else:
        torch.mean(_by_image(rows, into), 1, out=into)


def excite(rows: Tensor, gates: Tensor) -> None:
    """Each image's rows times its gates (images, C), in place."""
    if loop := loop_for("excite", rows, gates):
        loop(rows.data_ptr(), gates.data_ptr(), *_by_image(rows, gates).shape)
    else:
        _by_image(rows, gates).mul_(gates[:, None])


def gate_gradient(gradient: Tensor, values: Tensor, like: Tensor, relu: bool) -> Tensor:
    """Sums over each image's pixels of gradient times activated values: the gradient of gates `like` these."""
    if loop := loop_for("gate_gradient", gradient, values, like):
        found = torch.empty_like(like)
        places = gradient.data_ptr(), values.data_ptr(), found.data_ptr()
        loop(relu, *places, *_by_image(gradient, like).shape)
        return found
    activated = torch.empty_like(values)
    activate(values, activated, relu)
    return _by_image(activated.mul_(gradient), like).sum(1)


def excitation_gradient(
    gradient: Tensor, values: Tensor, gates: Tensor, shifts: Tensor, into: Tensor, relu: bool, sums: Tensor
) -> None:
    """Back through gates and activation: gradient times gates plus shifts (images, C), times the activation's slope.

    Adds what `column_sums` gives of it and the values.
    """
    if loop := loop_for("excitation_gradient", gradient, values, gates, shifts, into):
        places = [tensor.data_ptr() for tensor in (gradient, values, gates, shifts, into, sums)]
        loop(relu, *places, *_by_image(gradient, gates).shape)
        return
    excited = _by_image(gradient, gates)
    torch.addcmul(shifts[:, None], excited, gates[:, None], out=excited)
    activation_gradient(gradient, values, into, relu, sums)


def _by_image(rows: Tensor, like: Tensor) -> Tensor:
    """Rows as (images, pixels, C), for as many images as `like` has rows."""
    return rows.view(len(like), -1, rows.shape[1])
