"""Maps as rows (pixels x channels), and what is computed on rows beside matrix products, forward and backward.

Each operation is one pass of a compiled kernel where there is one (`_kernels.c`), else several of PyTorch's operators.
Outputs are written in place or to buffers. Sums over rows are float64.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]  # documented, though not listed

from tfnas.nn.blocks import to_maps

TILE_BYTES = 8 * 2**20  # of the widest map
_aten: Any = torch.ops.aten


# ---- compiled kernels --------------------------------------------------------------------------------------------


def load_kernels() -> Any:
    """The module compiled from `_kernels.c`, or None where the package was installed without a C compiler."""
    try:
        return importlib.import_module("tfnas.supernet.cpu._kernels")
    except ImportError:
        return None


_MIN_PARALLEL_NUMEL = 2**15  # below, one thread is enough, as in PyTorch
_module = load_kernels()
level: int | None = None if _module is None else _module.LEVELS - 1
"""The instruction set whose kernels run, of those that this processor has; None: PyTorch's operators compute."""


def kernel_for(name: str, *tensors: Tensor) -> Callable[..., None] | None:
    """The compiled kernel for these tensors, with as many threads as PyTorch would take, or None.

    It is for tensors without gaps on the CPU, all float32 or all float64, and refuses arguments that do not fit each
    other (ValueError).
    """
    dtype = tensors[0].dtype
    if level is None or dtype not in (torch.float32, torch.float64):
        return None
    for tensor in tensors:
        if not (tensor.is_cpu and tensor.is_contiguous() and tensor.dtype == dtype):
            return None
    threads = 1 if tensors[0].numel() < _MIN_PARALLEL_NUMEL else torch.get_num_threads()
    return None if threads > 1 and not _module.PARALLEL else partial(_run, name, threads)


def _run(name: str, threads: int, *arguments: Tensor | float) -> None:
    given = [to_dlpack(one) if isinstance(one, Tensor) else one for one in arguments]
    _module.run(_module.KERNELS.index(name), level, threads, *given)


# ---- tiles of rows -----------------------------------------------------------------------------------------------


def split_rows(size: int, *matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same `size` rows of every matrix, one tile after the other."""
    if matrices[0].shape[0] <= size:
        return iter((matrices,))  # small maps are many, and splitting them is much of their time
    return zip(*(torch.split(matrix, size) for matrix in matrices), strict=True)


def rows_per_tile(like: Tensor, channels: int) -> int:
    """How many rows of so many channels make a tile, of the type of `like`."""
    return max(1, TILE_BYTES // (like.element_size() * channels))


def images_per_tile(tile: int, pixels: int) -> int:
    """How many images of so many pixels make a tile of rows, one at least."""
    return max(1, tile // pixels)


def tile_buffer(like: Tensor, rows: int) -> Tensor:
    """Memory for a tile of a matrix."""
    return like.new_empty(min(rows, len(like)), like.shape[1])


# ---- operations --------------------------------------------------------------------------------------------------


def activate(values: Tensor, out: Tensor, relu: bool) -> None:
    """ReLU or swish of a matrix."""
    if kernel := kernel_for("activate", values, out):
        kernel(relu, values, out)
    elif relu:
        torch.clamp_min(values, 0, out=out)
    else:
        _aten.silu.out(values, out=out)


def activate_to_maps(rows: Tensor, out: Tensor, relu: bool) -> None:
    """Rows to a channels-last map `out` (N, C, H, W), in whose memory there may be gaps between rows of pixels."""
    images, channels, height, width = out.shape
    stride = out.stride(2)
    if out.stride() == (height * stride, 1, stride, channels) and (kernel := kernel_for("activate", rows)):
        pixel_rows = images * height, width * channels
        kernel(relu, rows.view(pixel_rows), out.permute(0, 2, 3, 1).view(pixel_rows))
    else:
        activate(to_maps(rows, images, height, width), out, relu)


def activation_gradient(gradient: Tensor, values: Tensor, out: Tensor, relu: bool, sums: Tensor) -> None:
    """Back through ReLU or swish; `out` may be the gradient. Adds `column_sums` of it and the values to `sums`."""
    if kernel := kernel_for("activation_gradient", gradient, values, out):
        kernel(relu, gradient, values, out, sums)
        return
    if relu:
        _aten.threshold_backward.grad_input(gradient, values, 0, grad_input=out)
    else:
        _aten.silu_backward.grad_input(gradient, values, grad_input=out)
    sums.add_(column_sums(out, values))


def zero_sums(like: Tensor) -> Tensor:
    """An accumulator for sums of the columns of a matrix: (2, columns), float64."""
    return like.new_zeros(2, like.shape[1], dtype=torch.float64)


def column_sums(gradient: Tensor, values: Tensor) -> Tensor:
    """Sums over the rows of the gradient, and of gradient times values: (2, columns), float64."""
    if kernel := kernel_for("column_sums", gradient, values):
        sums = zero_sums(gradient)
        kernel(gradient, values, sums)
        return sums
    # one pass over both: what batch norm's weights get
    maps, factors = (to_maps(matrix, 1, len(matrix), 1) for matrix in (gradient, values))
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
    if kernel := kernel_for("statistics", rows):
        mean, scale = rows.new_empty(rows.shape[1]), rows.new_empty(rows.shape[1])
        kernel(eps, rows, zero_sums(rows), mean, scale)
        return mean, scale
    mean, variance = _aten.batch_norm_update_stats(to_maps(rows, 1, len(rows), 1), None, None, 0.0)
    return mean, (variance + eps).rsqrt()


def normalize(rows: Tensor, mean: Tensor, scale: Tensor) -> None:
    """In place."""
    if kernel := kernel_for("normalize", rows):
        kernel(rows, mean, scale)
    else:
        rows.sub_(mean).mul_(scale)


def normalize_and_activate(rows: Tensor, mean: Tensor, scale: Tensor, out: Tensor, relu: bool) -> None:
    """Rows normalised in place, and these activated to another matrix."""
    if kernel := kernel_for("normalize_and_activate", rows, out):
        kernel(relu, rows, mean, scale, out)
        return
    normalize(rows, mean, scale)
    activate(rows, out, relu)


def normalization_gradient(
    gradient: Tensor, normalized: Tensor, scale: Tensor, sums: Tensor, out: Tensor, count: int
) -> None:
    """Back through batch statistics from their output; `out` may be the gradient.

    `sums` are the `column_sums` of all `count` rows, of which these may be some.
    """
    if kernel := kernel_for("normalization_gradient", gradient, normalized, out):
        kernel(count, gradient, normalized, scale, sums, out)
        return
    mean, slope = (sums / count).to(gradient.dtype)
    torch.addcmul(gradient, normalized, slope, value=-1, out=out).sub_(mean).mul_(scale)


def image_means(rows: Tensor, out: Tensor) -> None:
    """Means over the pixels of each image: rows (images * pixels, C), `out` (images, C)."""
    if kernel := kernel_for("image_means", rows, out):
        kernel(_by_image(rows, out), out)
    else:
        torch.mean(_by_image(rows, out), 1, out=out)


def excite(rows: Tensor, gates: Tensor) -> None:
    """Each image's rows times its gates (images, C), in place."""
    if kernel := kernel_for("excite", rows, gates):
        kernel(_by_image(rows, gates), gates)
    else:
        _by_image(rows, gates).mul_(gates[:, None])


def gate_gradient(gradient: Tensor, values: Tensor, like: Tensor, relu: bool) -> Tensor:
    """Sums over each image's pixels of gradient times activated values: the gradient of gates `like` these."""
    if kernel := kernel_for("gate_gradient", gradient, values, like):
        to_gates = torch.empty_like(like)
        kernel(relu, _by_image(gradient, like), _by_image(values, like), to_gates)
        return to_gates
    activated = torch.empty_like(values)
    activate(values, activated, relu)
    return _by_image(activated.mul_(gradient), like).sum(1)


def excitation_gradient(
    gradient: Tensor, values: Tensor, gates: Tensor, shifts: Tensor, out: Tensor, relu: bool, sums: Tensor
) -> None:
    """Back through gates and activation: gradient times gates plus shifts (images, C), times the activation's slope.

    Adds `column_sums` of it and the values to `sums`.
    """
    if kernel := kernel_for("excitation_gradient", gradient, values, gates, shifts, out):
        maps = [_by_image(rows, gates) for rows in (gradient, values, out)]
        kernel(relu, *maps[:2], gates, shifts, maps[2], sums)
        return
    excited = _by_image(gradient, gates)
    torch.addcmul(shifts[:, None], excited, gates[:, None], out=excited)
    activation_gradient(gradient, values, out, relu, sums)


def _by_image(rows: Tensor, like: Tensor) -> Tensor:
    """Rows as (images, pixels, C), for as many images as `like` has rows."""
    return rows.view(len(like), -1, rows.shape[1])
