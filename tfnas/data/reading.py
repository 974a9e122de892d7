"""Read an image file as a person sees it: upright, in colour, on white paper.

Any mode that Pillow opens becomes 8-bit RGB. EXIF orientation is applied; transparency is composited on white, as a
page or a browser shows it; 16-bit grey is scaled to 8 bits instead of being cut off at 255.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from tfnas.errors import InputError

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


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. ImageOps.exif_transpose also rewrites the EXIF block, which fails on damaged ones."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:  # damaged metadata around sound pixels: viewers show the pixels as they are
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _flattened(image: Image.Image) -> Image.Image:
    """Return the image as RGB, without transparency and at 8 bits a channel."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_sixteen_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known white; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale grey values 0..65535 to 0..255; Pillow's own conversion would clip them at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _SIXTEEN_BIT_WHITE:
        raise ValueError("grey values outside 0..65535 have no known white; convert it to 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
