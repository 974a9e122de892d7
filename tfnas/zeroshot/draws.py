"""The random numbers that scores are computed with, from a generator of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Random numbers on the CPU in single precision, whatever device and precision the score is computed in.

    So a seed stands for the same weights and images everywhere. A subclass may take them from elsewhere.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def images(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers."""
        return self._normal(shape)

    def labels(self, num_classes: int, count: int) -> Tensor:
        """Uniform classes (count,)."""
        return torch.randint(0, num_classes, (count,), generator=self.generator)

    def weight(self, place: int, shape: Sequence[int]) -> Tensor:  # noqa: ARG002 - a subclass may go by the place
        """Standard normal numbers for the weight of the convolution or linear layer that stands at `place`."""
        return self._normal(shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers between -1 and 1."""
        return torch.rand(tuple(shape), generator=self.generator, dtype=torch.float32) * 2 - 1

    def _normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, dtype=torch.float32)
