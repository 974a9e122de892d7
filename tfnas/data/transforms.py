"""Random views and colours of photographs, cheaply: what TF-NAS (ECCV 2020) does to them, in fewer passes over pixels.

The random numbers and their meaning are torchvision's (RandomResizedCrop, RandomHorizontalFlip, ColorJitter), drawn in
the same order. What differs is how the colours are computed: brightness, contrast, saturation and hue together are one
matrix per image, applied once. Values are cut off at 0 and 255 at the end instead of after each of the four, and hue
turns colours about the grey axis, where torchvision turns them in HSV, which is not linear.

What happens to the images of each kind of data, for weight training and for everything else.

Pictures from files are computed with by Pillow, on one thread, or in integers, so that pixels do not depend on how many
threads a process has. They are uint8 until they are where the network computes, and are normalised there. Sources:
crop, flip and colour jitter of files are those of TF-NAS (ECCV 2020), see `augmenting.py`; CIFAR's are those of He et
al., 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.data.data_config import EMBEDDED, DataName
from tfnas.data.image_reading import View
from tfnas.data.images import Transform

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
STRENGTH, HUE = (0.6, 1.4), (-0.2, 0.2)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow makes grey
_FRACTION_BITS = 16
_ONE = 1 << _FRACTION_BITS


class RandomView:
    """Chooses a random part of a picture, to be scaled to `image_size` pixels."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, width: int, height: int) -> View:
        """Draw from PyTorch's global generator."""
        from torchvision.transforms import RandomResizedCrop  # only when pictures come: it takes seconds to import

        picture = torch.empty(3, height, width, device="meta")  # its size is all that is asked for
        upper, left, rows, columns = RandomResizedCrop.get_params(picture, list(AREA), list(ASPECT))
        return View((left, upper, left + columns, upper + rows), self.image_size)


class FlipAndColour(nn.Module):
    """Mirrors a picture by chance and changes its colours; uint8 3 x H x W becomes the same."""

    def forward(self, picture: Tensor) -> Tensor:
        """Draw from PyTorch's global generator."""
        from torchvision.transforms import ColorJitter

        picture = picture.contiguous()
        if torch.rand(1) < 0.5:
            picture = picture.flip(2)
        strength = list(STRENGTH)
        order, *factors = ColorJitter.get_params(strength, strength, strength, list(HUE))
        matrix = colour_matrix(order.tolist(), [factor or 0.0 for factor in factors], mean_colour(picture))
        return coloured(picture, matrix)


def mean_colour(picture: Tensor) -> npt.NDArray[np.float64]:
    """Mean red, green and blue (0 to 255) of a picture, uint8 3 x H x W."""
    of_columns = picture.numpy().sum(1, dtype=np.uint32)  # down the rows first, which is quick
    mean: npt.NDArray[np.float64] = of_columns.mean(1) / picture.shape[1]
    return mean


def coloured(picture: Tensor, matrix: npt.NDArray[np.float64]) -> Tensor:
    """Apply a 3 x 4 matrix to the colours of a picture, uint8 3 x H x W; what is below 0 or above 255 is cut off.

    It is computed in integers, 65536 standing for 1: their sums do not depend on how many threads share them out.
    """
    colours = picture.to(torch.int32)
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
    """What changes of brightness, contrast, saturation and hue make of red, green and blue: 3 x 4, the last an offset.

    Args:
        order: Which of the four (0 to 3, in the order above) comes first, second, ...; those left out are not done.
        factors: Their four factors as torchvision has them; hue in turns.
        mean: Mean red, green and blue of the picture, which contrast stretches colours away from (from its grey).
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


CIFAR_SIDE = 32
_CIFAR_SHIFT = 4


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of red, green and blue, of values between 0 and 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Float32 values of uint8 pixels ... x 3 x H x W, computed where the pixels are."""
        values = pixels.to(torch.float32, copy=True).mul_(1 / 255)
        return values.sub_(_per_channel(self.mean, pixels.device)).div_(_per_channel(self.std, pixels.device))


@lru_cache(maxsize=32)
def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """The values as 3 x 1 x 1. They are kept: to bring them to a GPU for every batch would make it wait."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

NORMALISATIONS: dict[DataName, Normalisation] = {
    "digits": Normalisation((0.3053, 0.3053, 0.3053), (0.3759, 0.3759, 0.3759)),  # of the 1,797 images at 8 x 8
    "digit_pairs": Normalisation((0.1324, 0.1324, 0.1324), (0.2370, 0.2370, 0.2370)),  # of the weight part at 16 x 16
    "list": _IMAGENET,
    "folder": _IMAGENET,
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


class RandomShift(nn.Module):
    """Moves an image by up to `reach` pixels in each direction; what comes in is 0.

    It draws as torchvision's RandomCrop of the padded image does.
    """

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, image: Tensor) -> Tensor:
        """Draw from PyTorch's global generator; of the shape of the image, ... x H x W."""
        height, width = image.shape[-2:]
        top, left = (int(torch.randint(0, 2 * self.reach + 1, (1,))) for _ in range(2))
        padded = functional.pad(image, [self.reach] * 4)
        return padded[..., top : top + height, left : left + width]


def training_transform(name: DataName, image_size: int, further: Sequence[nn.Module] = ()) -> Transform:
    """Build the transform with augmentation, for the images that train weights.

    `further` augmentations come last, on uint8 3 x S x S.
    """
    shape: nn.Module
    view = None
    if name in EMBEDDED:
        reach = max(1, round(image_size / 16))  # half a pixel of the 8 x 8 original
        shape = RandomShift(reach)
    elif name in ("cifar10", "cifar100"):
        from torchvision.transforms import v2  # takes seconds to import, which the embedded data need not wait for

        crop = v2.RandomCrop(CIFAR_SIDE, padding=_CIFAR_SHIFT)
        shape = v2.Compose([crop, v2.RandomHorizontalFlip(), _cifar_size(image_size)])
    else:
        shape, view = FlipAndColour(), RandomView(image_size)
    if further:
        shape = nn.Sequential(shape, *further)
    return Transform(shape, NORMALISATIONS[name], view)


def plain_transform(name: DataName, image_size: int) -> Transform:
    """Build the transform without randomness, for the architecture and test parts."""
    shape: nn.Module
    if name in EMBEDDED:
        shape = nn.Identity()
    elif name in ("cifar10", "cifar100"):
        shape = _cifar_size(image_size)
    else:
        from torchvision.transforms import v2

        shape = v2.Compose([v2.Resize(short_side_of(name, image_size)), v2.CenterCrop(image_size), v2.PILToTensor()])
    return Transform(shape, NORMALISATIONS[name])


def short_side_of(name: DataName, image_size: int) -> int:
    """Pixels of a picture's short side before its middle is taken; data of one size (digits, CIFAR) is taken whole."""
    return round(image_size * 256 / 224) if name in ("list", "folder") else image_size


def _cifar_size(image_size: int) -> nn.Module:
    from torchvision.transforms import v2

    resize: nn.Module = v2.Resize((image_size, image_size))
    return nn.Identity() if image_size == CIFAR_SIDE else resize
