"""What a trained network expects of a picture: its size, how it is cut out, and how its colours are normalised."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import MOST_IMAGE_SIZE, check_number
from tfnas.data.data_config import DataName
from tfnas.data.transforms import NORMALISATIONS, Normalisation, short_side_of


@dataclass(frozen=True)
class Preprocessing:
    """The short side of a picture becomes `short_side` pixels, the middle `image_size` x `image_size` of it is taken.

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
        return cls(image_size, short_side_of(name, image_size), norm.mean, norm.std)

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
        """Its fields, as JSON and checkpoints hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def cut(self, picture: Image.Image) -> Tensor:
        """The middle of an RGB picture as uint8, 3 x image_size x image_size."""
        from torchvision.transforms.v2 import functional  # only when pictures come: it takes seconds to import

        shaped: Image.Image = functional.center_crop(functional.resize(picture, [self.short_side]), [self.image_size])
        pixels: Tensor = functional.pil_to_tensor(shaped)
        return pixels

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float32 values from uint8 pixels ... x 3 x H x W."""
        return Normalisation(self.mean, self.std)(pixels)
