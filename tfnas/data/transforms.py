"""What happens to the images of each kind of data, for weight training and for everything else.

Pictures from files stay Pillow images until they are square: Pillow computes on one thread, so a mean over pixels
(contrast jitter) does not depend on how many threads a process has. Sources: crop, flip and colour jitter of files are
those of TF-NAS (ECCV 2020); CIFAR's are those of He et al., 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.transforms import v2

from tfnas.data.config import DataName
from tfnas.data.images import Transform

CIFAR_SIDE = 32
_CIFAR_SHIFT = 4


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of red, green and blue, of values between 0 and 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

NORMALISATIONS: dict[DataName, Normalisation] = {
    "digits": Normalisation((0.3053, 0.3053, 0.3053), (0.3759, 0.3759, 0.3759)),  # of the 1,797 images at 8 x 8
    "list": _IMAGENET,
    "folder": _IMAGENET,
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def training_transform(name: DataName, image_size: int, further: Sequence[nn.Module] = ()) -> Transform:
    """Build the transform with augmentation, for the images that train weights.

    `further` augmentations come last, on uint8 3 x S x S.
    """
    shape: nn.Module
    if name == "digits":
        reach = max(1, round(image_size / 16))  # half a pixel of the 8 x 8 original
        shape = v2.RandomCrop(image_size, padding=reach)
    elif name in ("cifar10", "cifar100"):
        crop = v2.RandomCrop(CIFAR_SIDE, padding=_CIFAR_SHIFT)
        shape = v2.Compose([crop, v2.RandomHorizontalFlip(), _cifar_size(image_size)])
    else:
        jitter = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
        crop = v2.RandomResizedCrop(image_size)
        shape = v2.Compose([crop, v2.RandomHorizontalFlip(), jitter, v2.PILToTensor()])
    if further:
        shape = v2.Compose([shape, *further])
    return Transform(shape, _normalise(name))


def plain_transform(name: DataName, image_size: int) -> Transform:
    """Build the transform without randomness, for the architecture and test parts."""
    shape: nn.Module
    if name == "digits":
        shape = nn.Identity()
    elif name in ("cifar10", "cifar100"):
        shape = _cifar_size(image_size)
    else:
        shape = v2.Compose([v2.Resize(short_side_of(name, image_size)), v2.CenterCrop(image_size), v2.PILToTensor()])
    return Transform(shape, _normalise(name))


def short_side_of(name: DataName, image_size: int) -> int:
    """Pixels of a picture's short side before its middle is taken; data of one size (digits, CIFAR) is taken whole."""
    return round(image_size * 256 / 224) if name in ("list", "folder") else image_size


def _cifar_size(image_size: int) -> nn.Module:
    resize: nn.Module = v2.Resize((image_size, image_size))
    return nn.Identity() if image_size == CIFAR_SIDE else resize


def _normalise(name: DataName) -> nn.Module:
    norm = NORMALISATIONS[name]
    composed: nn.Module = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(norm.mean, norm.std)])
    return composed
