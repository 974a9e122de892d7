"""The data that scikit-learn ships: handwritten digits, and pairs of them. Both are held in memory.

* `digits`: 1,797 real handwritten digits of 8 x 8 pixels, which scikit-learn ships. Source: E. Alpaydin and C. Kaynak,
  Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
* `digit_pairs`: images of two of them, whose class is the one that is read first. Every small network separates the
  bundled digits. To tell which comes first, a network needs their relative position, hence a large receptive field.
  The images are the same in every run, and each part is composed from the originals of that part only: no digit that
  trains is seen in a test image.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tfnas.core.errors import InputError
from tfnas.data.image_sets import ArraySource, ImageSource, Parts, divide

_FULL_INK = 16  # the largest value in the files
_TEST_SHARE = 0.2
_ARCHITECTURE_SHARE = 0.25  # of what is left: 60 / 20 / 20 in all


def digits_parts(image_size: int) -> Parts:
    """Open the digits, resized to `image_size` pixels, split 60 / 20 / 20 into weights, architecture and test."""
    from sklearn.datasets import load_digits  # takes a second to import; nobody else needs it

    digits = load_digits()
    class_names = tuple(str(name) for name in digits.target_names)
    grey = (torch.from_numpy(digits.images) * 255 / _FULL_INK).round().to(torch.uint8).unsqueeze(1)
    resized = functional.interpolate(grey, [image_size, image_size], mode="bilinear", antialias=True)
    whole = ArraySource(resized.expand(-1, 3, -1, -1), digits.target.tolist())
    return divide(whole, None, class_names, "digits", test_share=_TEST_SHARE, architecture_share=_ARCHITECTURE_SHARE)


NUM_IMAGES = {"weights": 4800, "architecture": 1600, "test": 3200}
"""Images of each part, the same number of every class."""

_LEAST_SIZE = 16
_NOISE = 0.05  # standard deviation, of full ink
_SEEDS = {"weights": 20260131, "architecture": 20260201, "test": 20260202}  # arbitrary but fixed

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int64]


def digit_pairs_parts(image_size: int) -> Parts:
    """Compose the images, `image_size` pixels wide: two digits of 7/16 of that, side by side or one above the other.

    Their places are drawn so that they do not overlap. The first in reading is the upper one where one stands wholly
    above the other, and else the left one. Equal digits are a pair too.
    Raises InputError for images too small to hold two digits.
    """
    if image_size < _LEAST_SIZE:
        raise InputError(
            f"--data digit_pairs contains two digits and needs {_LEAST_SIZE} pixels or more, "
            f"not --image_size {image_size}"
        )
    digits = digits_parts(image_size * 7 // 16)
    assert digits.test is not None
    originals = {"weights": digits.weights, "architecture": digits.architecture, "test": digits.test}
    composed = {name: _composed(name, source, image_size) for name, source in originals.items()}
    return Parts(composed["weights"], composed["architecture"], composed["test"], digits.class_names)


def _composed(part: str, digits: ImageSource, image_size: int) -> ArraySource:
    """The images of a part, from its digits."""
    assert isinstance(digits, ArraySource)
    random = np.random.RandomState(_SEEDS[part])  # its stream is frozen for all versions of numpy
    ink = digits.images[:, 0].numpy()
    labels = np.asarray(digits.labels)
    num_classes = int(labels.max()) + 1
    first = np.repeat(np.arange(num_classes), NUM_IMAGES[part] // num_classes)
    random.shuffle(first)
    second = (random.random_sample(len(first)) * num_classes).astype(np.int64)
    canvas = np.zeros((len(first), image_size, image_size), np.uint8)
    for wanted, (top, left) in zip((first, second), _places(random, len(first), image_size, ink.shape[1]), strict=True):
        _put(canvas, ink[_drawn(random, labels, wanted)], top, left)
    noisy = canvas + random.standard_normal(canvas.shape) * (_NOISE * 255)
    pixels = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).unsqueeze(1)
    return ArraySource(pixels.expand(-1, 3, -1, -1), first.tolist())


def _drawn(random: np.random.RandomState, labels: Whole, wanted: Whole) -> Whole:
    """A digit of every wanted label: their indices."""
    by_label = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    places = (random.random_sample(len(wanted)) * counts[wanted]).astype(np.int64)
    chosen: Whole = by_label[starts[wanted] + places]
    return chosen


def _places(
    random: np.random.RandomState, count: int, image_size: int, side: int
) -> tuple[tuple[Whole, Whole], tuple[Whole, Whole]]:
    """Top and left of the first and the second digit in reading: the second right of the first, or below it."""

    def up_to(most: Whole) -> Whole:
        """Whole numbers from 0 to `most`."""
        drawn: Whole = (random.random_sample(count) * (most + 1)).astype(np.int64)
        return drawn

    free = np.full(count, image_size - side)
    along_first = up_to(free - side)
    along_second = along_first + side + up_to(free - side - along_first)
    across_first, across_second = up_to(free), up_to(free)
    sideways = random.random_sample(count) < 0.5
    tops = np.where(sideways, across_first, along_first), np.where(sideways, across_second, along_second)
    lefts = np.where(sideways, along_first, across_first), np.where(sideways, along_second, across_second)
    below = tops[0] >= tops[1] + side  # left, but to be read later
    return (
        (np.where(below, tops[1], tops[0]), np.where(below, lefts[1], lefts[0])),
        (np.where(below, tops[0], tops[1]), np.where(below, lefts[0], lefts[1])),
    )


def _put(canvas: Bytes, ink: Bytes, top: Whole, left: Whole) -> None:
    """Draw one digit on every image, in place."""
    steps = np.arange(ink.shape[1])
    image = np.arange(len(canvas))[:, None, None]
    canvas[image, (top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None, :]] = ink
