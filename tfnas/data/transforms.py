"""What happens to the images of each kind of data, for weight training and for everything else.

Pictures from files are computed with by Pillow, on one thread, or in integers, so that pixels do not depend on how many
threads a process has. They are uint8 until they are where the network computes, and are normalised there. Sources:
crop, flip and colour jitter of files are those of TF-NAS (ECCV 2020), see `augmenting.py`; CIFAR's are those of He et
al., 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.data.augmenting import FlipAndColour, RandomView
from tfnas.data.config import EMBEDDED, DataName
from tfnas.data.images import Transform

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
