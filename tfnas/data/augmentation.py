"""Random changes of the photographs that train weights: those of TF-NAS (ECCV 2020), in fewer passes over pixels.

The random numbers and their meaning are torchvision's (RandomResizedCrop, RandomHorizontalFlip, ColorJitter), drawn in
the same order; the colours are computed otherwise: brightness, contrast, saturation and hue together are one matrix per
image, applied once. Values are clipped to 0..255 at the end instead of after each of the four, and hue rotates colours
about the grey axis, where torchvision rotates them in HSV, which is not linear.

Pixels do not depend on the number of threads: they are computed by Pillow, which has one, or in integers. They are
uint8 until they are where the network computes, and are normalised there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tfnas.data.image_sets import View

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
STRENGTH, HUE = (0.6, 1.4), (-0.2, 0.2)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow makes grey
_FRACTION_BITS = 16
_ONE = 1 << _FRACTION_BITS


class RandomView:
    """Chooses a random part of an image, to be scaled to `image_size` pixels."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, width: int, height: int) -> View:
        """Draw from PyTorch's global generator."""
        from torchvision.transforms import RandomResizedCrop  # takes seconds to import; only files need it

        image = torch.empty(3, height, width, device="meta")  # only its size is used
        upper, left, rows, columns = RandomResizedCrop.get_params(image, list(AREA), list(ASPECT))
        return View((left, upper, left + columns, upper + rows), self.image_size)


class FlipAndColour(nn.Module):
    """Flips an image at random and changes its colours; uint8 3 x H x W in and out."""

    def forward(self, image: Tensor) -> Tensor:
        """Draw from PyTorch's global generator."""
        from torchvision.transforms import ColorJitter

        image = image.contiguous()
        if torch.rand(1) < 0.5:
            image = image.flip(2)
        strength = list(STRENGTH)
        order, *factors = ColorJitter.get_params(strength, strength, strength, list(HUE))
        matrix = colour_matrix(order.tolist(), [factor or 0.0 for factor in factors], mean_colour(image))
        return coloured(image, matrix)


def mean_colour(image: Tensor) -> npt.NDArray[np.float64]:
    """Mean red, green and blue (0 to 255) of an image, uint8 3 x H x W."""
    of_columns = image.numpy().sum(1, dtype=np.uint32)  # down the rows first, which is quick
    mean: npt.NDArray[np.float64] = of_columns.mean(1) / image.shape[1]
    return mean


def coloured(image: Tensor, matrix: npt.NDArray[np.float64]) -> Tensor:
    """Apply a 3 x 4 matrix to the colours of an image, uint8 3 x H x W; clipped to 0..255.

    Computed in fixed point (65536 is 1), whose sums do not depend on the number of threads.
    """
    colours = image.to(torch.int32)
    red, green, blue = colours
    changed = torch.empty_like(colours)
    factors = np.rint(matrix * _ONE).astype(int).tolist()
    for channel, (of_red, of_green, of_blue, offset) in zip(changed, factors, strict=True):
        torch.mul(red, of_red, out=channel)
        channel.add_(green, alpha=of_green).add_(blue, alpha=of_blue).add_(offset + _ONE // 2)
    return changed.bitwise_right_shift_(_FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


def colour_matrix(
    order: Sequence[int], factors: Sequence[float], mean: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Changes of brightness, contrast, saturation and hue as one matrix on red, green, blue: 3 x 4, the last an offset.

    Args:
        order: Which of the four (0 to 3, in the order above) comes first, second, ...; those left out are not done.
        factors: Their four factors as torchvision has them; hue in turns.
        mean: Mean red, green and blue of the image, which contrast stretches colours away from (from its grey).
    """
    matrix = np.eye(3, 4)
    brightness, contrast, saturation, hue = factors
    for change in order:
        if change == 0:
            matrix = brightness * matrix
        elif change == 1:
            grey = _LUMA @ (matrix[:, :3] @ mean + matrix[:, 3])
            matrix = contrast * matrix
            matrix[:, 3] += (1 - contrast) * grey
        elif change == 2:
            matrix = saturation * matrix + (1 - saturation) * (_LUMA @ matrix)
        else:
            matrix = _turned_about_grey(hue) @ matrix
    return matrix


def _turned_about_grey(turns: float) -> npt.NDArray[np.float64]:
    """The rotation about the axis (1, 1, 1) that takes red to green in a third of a turn."""
    angle = 2 * math.pi * turns
    along, across = math.cos(angle), math.sin(angle) / math.sqrt(3)
    rest = (1 - along) / 3
    return np.array(
        [
            [along + rest, rest - across, rest + across],
            [rest + across, along + rest, rest - across],
            [rest - across, rest + across, along + rest],
        ]
    )
