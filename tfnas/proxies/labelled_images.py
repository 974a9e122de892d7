"""Real images for scores that noise is not enough for."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig
from tfnas.data.image_batches import EpochBatches
from tfnas.data.image_sets import ImageSet
from tfnas.data.opened_data import open_parts
from tfnas.data.preprocessing import Preprocessing


@lru_cache(maxsize=1)
def labelled_images(data: DataConfig, image_size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`count` images of the part that weights are trained on, (count, 3, image_size, image_size), and labels (count).

    They are drawn by the seed and not augmented, so that all networks of a set are scored on the same. Raises
    InputError where there are not so many.
    """
    name, parts = data.data_kind, open_parts(data, image_size)
    images = ImageSet((parts.weights,), Preprocessing.of(name, image_size).transform(), seed=0)
    if len(images) < count:
        raise InputError(
            f"--data {name} has {len(images)} images to train weights on, and {count} are needed: use a smaller batch"
        )
    pixels, labels = images.pixels(next(iter(EpochBatches(len(images), batch_size=count, epoch=0, seed=seed))))
    return images.transform.normalise(pixels), labels
