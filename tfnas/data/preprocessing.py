"""How an image is prepared for a network: what is cut out, its size, its normalisation, and random changes in training.

Every evaluation prepares images without randomness: the architecture part of a search, the test part, and images of
one's own. The images that train weights are changed at random, by kind of data; CIFAR's as by He et al., 2016.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import MOST_IMAGE_SIZE, check_number
from tfnas.data.data_config import BUNDLED, DataName
from tfnas.data.image_sets import Raw, Transform


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
    """The values as 3 x 1 x 1. Cached: a transfer to a GPU for every batch would make it wait."""
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


@dataclass(frozen=True)
class Preprocessing:
    """The short side of an image becomes `short_side` pixels, and its middle `image_size` x `image_size` is cut out.

    `mean` and `std` are of red, green and blue, of values between 0 and 1.
    """

    image_size: int
    short_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, name: DataName, image_size: int) -> Preprocessing:
        """What networks trained on this kind of data expect."""
        norm = NORMALISATIONS[name]
        is_cut = name in ("list", "folder")  # data of one size (digits, CIFAR) is taken whole
        return cls(image_size, round(image_size * 256 / 224) if is_cut else image_size, norm.mean, norm.std)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_json` gave. Raises InputError where a field is missing or wrong."""
        try:
            mean, std = (tuple(float(value) for value in fields[name]) for name in ("mean", "std"))
            sizes = operator.index(fields["image_size"]), operator.index(fields["short_side"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the preprocessing is incomplete or wrong: {error}") from error
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise InputError(f"the preprocessing is wrong: mean {mean!s:.80}, std {std!s:.80}")
        for name, size in zip(("image_size", "short_side"), sizes, strict=True):
            check_number(f"the preprocessing is wrong: {name}", size, MOST_IMAGE_SIZE)
        return cls(*sizes, mean, std)

    def to_json(self) -> dict[str, Any]:
        """Its fields, as JSON and checkpoints contain them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def at_size(self, image_size: int | None) -> Preprocessing:
        """The same part of an image at another number of pixels; None: as it is."""
        if image_size is None or image_size == self.image_size:
            return self
        short_side = max(image_size, round(self.short_side * image_size / self.image_size))
        return dataclasses.replace(self, image_size=image_size, short_side=short_side)

    def cut(self, raw: Raw) -> Tensor:
        """The middle of an RGB image, or an image in memory, resized where it is of another size.

        Returns uint8 3 x image_size x image_size.
        """
        size = [self.image_size, self.image_size]
        if isinstance(raw, Tensor) and list(raw.shape[-2:]) == size:
            return raw
        from torchvision.transforms.v2 import (
            functional,  # takes seconds to import, which bundled data need not wait for
        )

        if isinstance(raw, Tensor):
            resized: Tensor = functional.resize(raw, size)
            return resized
        middle: Image.Image = functional.center_crop(functional.resize(raw, [self.short_side]), size)
        pixels: Tensor = functional.pil_to_tensor(middle)
        return pixels

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float32 values from uint8 pixels ... x 3 x H x W."""
        return Normalisation(self.mean, self.std)(pixels)

    def transform(self) -> Transform:
        """As the transform of an image set."""
        return Transform(self.cut, self.normalise)


# ---- with random changes -----------------------------------------------------------------------------------------

_CIFAR_SIDE, _CIFAR_SHIFT = 32, 4


class RandomShift(nn.Module):
    """Moves an image by up to `reach` pixels in each direction, padded with 0.

    It draws as torchvision's RandomCrop with padding, whose import takes seconds that the bundled data need not wait.
    """

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, image: Tensor) -> Tensor:
        """Draw from PyTorch's global generator; of the shape of the image, ... x H x W."""
        height, width = image.shape[-2:]
        top, left = (int(torch.randint(0, 2 * self.reach + 1, (1,))) for _ in range(2))
        padded = nn.functional.pad(image, [self.reach] * 4)
        return padded[..., top : top + height, left : left + width]


def training_transform(name: DataName, image_size: int, further: Sequence[nn.Module] = ()) -> Transform:
    """Build the transform with augmentation, for the images that train weights.

    `further` augmentations come last, on uint8 3 x S x S.
    """
    shape: nn.Module
    view, plain = None, Preprocessing.of(name, image_size)
    if name in BUNDLED:
        reach = max(1, round(image_size / 16))  # half a pixel of the 8 x 8 original
        shape = RandomShift(reach)
    elif name in ("cifar10", "cifar100"):
        from torchvision.transforms import v2  # takes seconds to import, which bundled data need not wait for

        crop = v2.RandomCrop(_CIFAR_SIDE, padding=_CIFAR_SHIFT)
        shape = v2.Compose([crop, v2.RandomHorizontalFlip(), plain.cut])
    else:
        from tfnas.data.augmentation import FlipAndColour, RandomView  # of photographs only

        shape, view = FlipAndColour(), RandomView(image_size)
    if further:
        shape = nn.Sequential(shape, *further)
    return Transform(shape, plain.normalise, view)
