"""The embedded default: 1,797 real handwritten digits of 8 x 8 pixels that ship inside scikit-learn.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from tfnas.data.images import ArraySource
from tfnas.data.parts import Parts
from tfnas.data.splits import stratified_split

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
    train, test = stratified_split(whole.labels, _TEST_SHARE, class_names, "digits")
    training = whole.subset(train)
    weights, architecture = stratified_split(training.labels, _ARCHITECTURE_SHARE, class_names, "digits")
    return Parts(training.subset(weights), training.subset(architecture), whole.subset(test), class_names)
