"""A search's steps on a CPU, fast: several operators in one pass, tile by tile, and threads that compute in parallel.

`CpuKernels` is the whole of it. A supernet computes the same layer by layer, up to rounding, where it is not used.
"""

from __future__ import annotations

from tfnas.supernet.cpu.mbconv_autograd import convolve, mbconv, parallel_map, serial_operators, weighted_sum
from tfnas.supernet.cpu.row_ops import (
    excite,
    image_means,
    images_per_tile,
    load_kernels,
    normalize,
    normalize_and_activate,
    statistics,
)


class CpuKernels:
    """What a search's steps, and scores, compute in another way on a CPU."""

    convolve = staticmethod(convolve)
    mbconv = staticmethod(mbconv)
    weighted_sum = staticmethod(weighted_sum)
    parallel_map = staticmethod(parallel_map)
    serial_operators = staticmethod(serial_operators)

    # on rows (pixels x channels)
    statistics = staticmethod(statistics)
    normalize = staticmethod(normalize)
    normalize_and_activate = staticmethod(normalize_and_activate)
    image_means = staticmethod(image_means)
    excite = staticmethod(excite)
    images_per_tile = staticmethod(images_per_tile)

    @staticmethod
    def compiled() -> bool:
        """Whether this installation has the kernels in C; else PyTorch's operators compute, slower."""
        return load_kernels() is not None
