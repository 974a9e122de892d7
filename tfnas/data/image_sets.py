"""Sets of images: where raw images come from, and what is drawn from them.

A *source* reads a raw image and its label; an `ImageSet` puts a `Transform` on one or more sources. What comes out
depends on (seed, epoch, index) only: the random numbers of a draw are seeded from these three inside the data set, so
neither the number of loader processes nor the order of drawing changes a single bit.

A data set divides into *parts*, whose split is fixed: the same images go to the same part in every run, whatever its
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from tfnas.core.errors import InputError
from tfnas.utils.files import read_text_lines

Raw: TypeAlias = Image.Image | torch.Tensor
"""A raw image: an RGB picture of any size; or a uint8 tensor 3 x H x W, of data held in memory or a view of a file."""

# Independent random streams of one seed.
AUGMENT_STREAM, ORDER_STREAM = 0, 1


@lru_cache(maxsize=16)  # one epoch asks for the same seed once per image
def derived_seed(seed: int, *key: int) -> int:
    """Return a 32-bit seed that is a pure function of a run's seed and the key."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


@dataclass(frozen=True)
class Draw:
    """One image as one epoch sees it."""

    epoch: int
    index: int


_REDUCTIONS = (8, 4, 2)  # of a JPEG, whose format allows them


class View(NamedTuple):
    """A part of an upright picture: `box` (left, upper, right, lower in pixels), scaled to a square."""

    box: tuple[int, int, int, int]
    side: int

    def reduction(self) -> int:
        """By how much a picture may be reduced beforehand: the part keeps as many pixels as its square has, or more."""
        left, upper, right, lower = self.box
        least = min(right - left, lower - upper) // self.side
        return next((factor for factor in _REDUCTIONS if factor <= least), 1)


ChooseView: TypeAlias = Callable[[int, int], View]
"""Chooses a view of an upright picture by its width and height."""


class ImageSource(Protocol):
    """Raw images with their labels."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of every image."""

    def read(self, index: int, view: ChooseView | None = None) -> Raw:
        """Read image number `index`; of a picture file the part that `view` chooses. Raises InputError if it cannot."""

    def identity(self) -> bytes:
        """What identifies these images: their contents if they are in memory, otherwise their names."""


class WholeSource(ImageSource, Protocol):
    """Images of a data set that is yet to be divided."""

    def subset(self, indices: Sequence[int]) -> WholeSource:
        """Return the images at the indices, in their order."""


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images held in memory: `images` is a uint8 tensor N x 3 x H x W."""

    images: torch.Tensor
    labels: Sequence[int]

    def read(self, index: int, view: ChooseView | None = None) -> Raw:  # noqa: ARG002 - is of one size, and whole
        """Return image number `index`, a slice of the images, uint8 3 x H x W."""
        return self.images[index]

    def identity(self) -> bytes:
        """Return the pixels."""
        return self.images.numpy().tobytes()

    def subset(self, indices: Sequence[int]) -> ArraySource:
        """Return the images at the indices, in their order."""
        return ArraySource(self.images[torch.as_tensor(indices)], [self.labels[i] for i in indices])


@dataclass(frozen=True)
class Transform:
    """What happens to a raw image: `shape` makes it uint8 3 x S x S (and may be random), `normalise` float32.

    `normalise` works element by element on any number of leading dimensions, so that it can take a batch at once,
    wherever that is. Where there is a `view`, only the part that it chooses is read of a picture file.
    """

    shape: Callable[[Raw], torch.Tensor]
    normalise: Callable[[torch.Tensor], torch.Tensor]
    view: ChooseView | None = None


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset[tuple[torch.Tensor, int]]):
    """Images of one or more sources under one transform; items are (float32 3 x S x S, label), indexed by `Draw`."""

    sources: tuple[ImageSource, ...]
    transform: Transform
    seed: int

    def __len__(self) -> int:
        return sum(len(source.labels) for source in self.sources)

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, int]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[tuple[torch.Tensor, int]]:
        """Return the items of several draws."""
        pixels, labels = self.pixels(draws)
        return list(zip(self.transform.normalise(pixels), labels.tolist(), strict=True))

    def pixels(self, draws: Sequence[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return several draws before they are normalised: uint8 B x 3 x S x S, and labels int64 B.

        Only the generator of the CPU is touched, and it is put back: torch.manual_seed would reseed CUDA's as well.
        """
        shaped: list[torch.Tensor] = []
        labels: list[int] = []
        with torch.random.fork_rng(devices=[]):
            for draw in draws:
                source, index = self._locate(draw.index)
                torch.default_generator.manual_seed(derived_seed(self.seed, AUGMENT_STREAM, draw.epoch) + draw.index)
                shaped.append(self.transform.shape(source.read(index, self.transform.view)))
                labels.append(source.labels[index])
        return torch.stack(shaped), torch.tensor(labels)

    def fingerprint(self) -> str:
        """Return a short digest of labels and images (files by their names), the same for the same set."""
        digest = hashlib.sha256(np.array(self.labels, dtype=np.int64).tobytes())
        for source in self.sources:
            digest.update(source.identity())
        return digest.hexdigest()[:16]

    @property
    def labels(self) -> list[int]:
        """The label of every image."""
        return [label for source in self.sources for label in source.labels]

    def _locate(self, index: int) -> tuple[ImageSource, int]:
        """Find the source of image number `index`, and its number there."""
        local = index
        for source in self.sources:
            if local < len(source.labels):
                return source, local
            local -= len(source.labels)
        raise IndexError(f"image {index} of {len(self)}")


@dataclass(frozen=True)
class Parts:
    """Raw images for training weights, for training the architecture, and (where there are any) for the final test."""

    weights: ImageSource
    architecture: ImageSource
    test: ImageSource | None
    class_names: tuple[str, ...]


def divide(
    whole: WholeSource,
    test: ImageSource | None,
    class_names: tuple[str, ...],
    where: str,
    *,
    test_share: float,
    architecture_share: float,
) -> Parts:
    """Divide a data set into parts, the same way every time.

    Without a test part of its own, `test_share` of every class is set aside for it (none if 0); `architecture_share` of
    what is left is the architecture part. `where` says in messages what is divided.
    Raises InputError for a class with too few images.
    """
    training = whole
    if test is None and test_share > 0:
        kept, held = stratified_split(whole.labels, test_share, class_names, where)
        training, test = whole.subset(kept), whole.subset(held)
    weights, architecture = stratified_split(training.labels, architecture_share, class_names, where)
    return Parts(training.subset(weights), training.subset(architecture), test, class_names)


_SPLIT_SEED = 20200824  # arbitrary but fixed: changing it changes every split ever made


def stratified_split(
    labels: Sequence[int], share: float, class_names: Sequence[str], where: str
) -> tuple[list[int], list[int]]:
    """Divide images into the rest and a `share` of every class, at least one image each, both in rising order.

    Args:
        labels: The label of every image, 0 .. len(class_names) - 1.
        share: Share of each class for the second part, between 0 and 1.
        class_names: The name of every label, for messages.
        where: What is split, for messages.

    Returns:
        Indices of the rest and indices of the share.

    Raises:
        InputError: A class has fewer than two images.
    """
    # scikit-learn's splitters guarantee neither an image of every class in both nor the same split in every version;
    # the stream of RandomState is frozen.
    random = np.random.RandomState(_SPLIT_SEED)
    rest: list[int] = []
    shared: list[int] = []
    for label, name in enumerate(class_names):
        members = np.flatnonzero(np.asarray(labels) == label)
        if len(members) < 2:
            raise InputError(
                f"{where}: class {name!r} has {len(members)} image(s); a split into weight and architecture "
                "parts needs at least 2 of every class. Add images or remove the class."
            )
        random.shuffle(members)
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        shared.extend(members[:count].tolist())
        rest.extend(members[count:].tolist())
    return sorted(rest), sorted(shared)


def check_num_classes(num_classes: int | None, name: str, classes: tuple[str, ...]) -> None:
    """Raise InputError where --num_classes is another number than the data has."""
    if num_classes not in (None, len(classes)):
        raise InputError(
            f"--data {name} has {len(classes)} classes here, but --num_classes is {num_classes}; correct or omit it"
        )


def named_classes(class_names: str | None, own: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in the file that --class_names names, or the data set's own."""
    if class_names is None:
        return own
    path = Path(class_names)
    names = read_text_lines(path, "--class_names")
    if "" in names:
        raise InputError(f"{path}:{names.index('') + 1}: empty line; write one class name per line")
    if len(names) != len(own):
        raise InputError(
            f"--class_names {path}: names {len(names)} classes, but the data has {len(own)}; "
            "correct the file, or set --num_classes"
        )
    return tuple(names)
