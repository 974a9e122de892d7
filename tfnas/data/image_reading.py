"""Read an image file as a person sees it: upright, in colour, on white paper.

Any mode that Pillow opens becomes 8-bit RGB. EXIF orientation is applied; transparency is composited on white, as a
page or a browser shows it; 16-bit grey is scaled to 8 bits instead of being clipped at 255.

`read_view` reads a part of a picture at a size. A large JPEG is then decoded at a half, a quarter or an eighth of its
size, which its format allows, as far as the part has no fewer pixels than are asked for.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn import functional

from tfnas.core.errors import InputError
from tfnas.data.image_sets import ChooseView

# What Pillow raises on damaged files: UnidentifiedImageError is an OSError, "broken PNG file" a SyntaxError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# EXIF orientation -> what undoes it. Orientation 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
# The orientations in which the stored right or lower border is seen on the left, and those in which on top.
_FROM_THE_LEFT, _FROM_THE_TOP = frozenset({2, 3, 6, 7}), frozenset({3, 4, 7, 8})
_JPEG = frozenset({"JPEG", "MPO"})
_WHITE = (255, 255, 255, 255)
_SIXTEEN_BIT_WHITE = 65535


def read_rgb(path: Path, where: str) -> Image.Image:
    """Read an image file as an upright 8-bit RGB image.

    Args:
        path: The image file.
        where: What named the file (`train.txt:12`, or --img_root); error messages begin with it.

    Raises:
        InputError: The file is missing, damaged, or of a kind without a known white (floating point).
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _flattened(_upright(image))
    except _DAMAGED as error:
        raise InputError(f"{where}: cannot read the image {path}: {error}. Replace it or take it out.") from None


def read_view(path: Path, where: str, choose: ChooseView) -> Tensor:
    """Read a part of an image file, upright and scaled to its square (bilinear): uint8 3 x side x side.

    Args:
        path: The image file.
        where: What named the file; error messages begin with it.
        choose: Called with the upright picture's width and height.

    Raises:
        InputError: As `read_rgb`.
    """
    try:
        with Image.open(path) as image:
            if image.format not in _JPEG:  # whose header contains size and orientation
                image.load()
            orientation = _orientation(image)
            width, height = image.size[::-1] if orientation in _QUARTER_TURNS else image.size
            view = choose(width, height)
            factor = _reduce(image, view.reduction())
            image.load()
            picture = _flattened(_upright(image))
    except _DAMAGED as error:
        raise InputError(f"{where}: cannot read the image {path}: {error}. Replace it or take it out.") from None
    if factor == 1.0:
        return _scaled(picture.crop(view.box), view.side)
    # A reduced picture ends, where it is stored, with pixels that stand for less than `factor` of the whole one.
    across = picture.width - width / factor if orientation in _FROM_THE_LEFT else 0.0
    down = picture.height - height / factor if orientation in _FROM_THE_TOP else 0.0
    left, upper, right, lower = (edge / factor for edge in view.box)
    box = (left + across, upper + down, min(right + across, picture.width), min(lower + down, picture.height))
    return _pixels(picture.resize((view.side, view.side), Image.Resampling.BILINEAR, box))[0]


def _reduce(image: Image.Image, reduction: int) -> float:
    """Have an image that is not loaded yet decoded smaller, where its format can. Returns by how much it then is."""
    if reduction == 1:
        return 1.0
    width, height = image.size
    drafted = image.draft(image.mode, (width // reduction, height // reduction))
    return 1.0 if drafted is None else width / drafted[1][2]


def _scaled(part: Image.Image, side: int) -> Tensor:
    """Scale a whole RGB picture to a square as Pillow does (bilinear, smoothed when it shrinks), in half the time.

    PyTorch computes it in integers, so that pixels do not depend on how many threads it has.
    """
    return functional.interpolate(_pixels(part), size=(side, side), mode="bilinear", antialias=True)[0]


def _pixels(picture: Image.Image) -> Tensor:
    """The pixels of an RGB picture as uint8 1 x 3 x H x W; in memory, the three values of a pixel stay together."""
    return torch.from_numpy(np.array(picture))[None].permute(0, 3, 1, 2)


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation; None where there is none, or it cannot be read."""
    try:
        orientation: int | None = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:  # damaged metadata around sound pixels: viewers show the pixels as they are
        return None
    return orientation


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. ImageOps.exif_transpose also rewrites the EXIF block, which fails on damaged ones."""
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _flattened(image: Image.Image) -> Image.Image:
    """Return the image as RGB, without transparency and at 8 bits a channel."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_sixteen_bits(image)
    if image.mode == "F":
        raise ValueError("the white level of floating-point pixels is unknown; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale grey values 0..65535 to 0..255; Pillow's own conversion would clip them at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _SIXTEEN_BIT_WHITE:
        raise ValueError("the white level of grey values outside 0..65535 is unknown; convert it to 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
