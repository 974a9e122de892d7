"""The images that an exported file is checked on, and those that int8 is calibrated on."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tfnas.core.errors import InputError
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.data.image_files import FileSource, image_folder, images_below
from tfnas.data.image_sets import ArraySource, Draw, ImageSet, ImageSource
from tfnas.data.preprocessing import Preprocessing
from tfnas.data.retrain_data import RetrainData
from tfnas.export.export_config import ExportConfig
from tfnas.runs.model_file import TrainedModel
from tfnas.runs.named_model import bundled_images, enclosing_run, run_images

_NOISE_IMAGES = 64
_WANTED = "int8 is calibrated on real images: give some with --img_root FOLDER"


@dataclass(frozen=True, eq=False)
class SampledImages:
    """Some images of a set, without augmentation: those at `indices`, in that order, and what they are."""

    description: str
    images: ImageSet
    indices: Sequence[int]
    labelled: bool

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, count: int) -> SampledImages:
        """At most the first `count` of them."""
        return dataclasses.replace(self, indices=self.indices[:count])

    def labels(self) -> Tensor:
        """The label of every image, int64."""
        return torch.tensor(self.images.labels)[list(self.indices)]

    def pixels(self, batch_size: int) -> Iterator[Tensor]:
        """Batches of uint8 N x 3 x S x S, the last may be smaller. Raises InputError naming a damaged file."""
        for start in range(0, len(self), batch_size):
            yield self.images.pixels([Draw(0, index) for index in self.indices[start : start + batch_size]])[0]


@dataclass(frozen=True, eq=False)
class ExportImages:
    """What a file is checked on, and what int8 is calibrated on (None where there is nothing real)."""

    check: SampledImages
    calibration: SampledImages | None


def open_export_images(config: ExportConfig, model: TrainedModel, preprocessing: Preprocessing) -> ExportImages:
    """The images in --img_root, else those of the training run, else the bundled digits or noise.

    Raises InputError when --img_root contains none, or when int8 is wanted and there are no real ones.
    """
    if config.img_root is not None:
        return _from_folder(image_folder(config.img_root, "--img_root", "folder"), config, model, preprocessing)
    run = enclosing_run(Path(config.place))
    why = "a model without its run has no images"
    try:
        if run is not None:
            return _from_training(run_images(run), "of the run", config, model, preprocessing)
    except InputError as error:
        why = str(error)
    if model.data == "digits":
        digits = bundled_images(model.class_names, preprocessing.image_size)
        if digits.class_names == model.class_names:
            return _from_training(digits, "of the bundled digits", config, model, preprocessing)
    if config.quantize:
        raise InputError(f"{_WANTED} ({why})")
    return ExportImages(_noise(preprocessing, why, config.seed), None)


def _from_training(
    data: RetrainData, whose: str, config: ExportConfig, model: TrainedModel, preprocessing: Preprocessing
) -> ExportImages:
    """Check on the test part, or on training images where there is none; calibrate on training images."""
    if data.class_names != model.class_names:
        raise InputError(f"the images {whose} now have other classes than the model")

    def sampled(description: str, sources: tuple[ImageSource, ...], count: int) -> SampledImages:
        images = ImageSet(sources, preprocessing.transform(), seed=0)
        everything = range(len(images))
        some = random.Random(config.seed).sample(everything, count) if count < len(images) else everything
        return SampledImages(description, images, some, labelled=True)

    training = data.train.sources
    if data.validation is None:
        check = sampled(f"training images {whose}, which has no test part", training, config.check_images)
    else:
        check = sampled(f"test images {whose}", data.validation.sources, config.check_images)
    return ExportImages(check, sampled(f"training images {whose}", training, config.calibration_images))


def _from_folder(root: Path, config: ExportConfig, model: TrainedModel, preprocessing: Preprocessing) -> ExportImages:
    """All images under a folder; for int8, one half is for calibration and the other for the check."""
    names = sorted(str(path.relative_to(root)) for path in images_below(root) if os.path.isfile(path))  # noqa: PTH113
    least = 2 if config.quantize else 1
    if len(names) < least:
        raise InputError(f"img_root is {root}: it contains {len(names)} images; at least {least} are needed")
    numbers = {name: number for number, name in enumerate(model.class_names)}
    labels = [numbers.get(Path(name).parts[0], -1) for name in names]
    images = ImageSet((FileSource(root, names, labels),), preprocessing.transform(), seed=0)
    order = list(range(len(names)))
    random.Random(config.seed).shuffle(order)
    half = min(config.calibration_images, len(order) // 2) if config.quantize else 0

    def part(indices: Sequence[int]) -> SampledImages:
        return SampledImages(f"images in {root}", images, indices, labelled=min(labels) >= 0)

    return ExportImages(part(order[half : half + config.check_images]), part(order[:half]) if half else None)


def _noise(preprocessing: Preprocessing, why: str, seed: int) -> SampledImages:
    size = preprocessing.image_size
    shape = (_NOISE_IMAGES, IMAGE_CHANNELS, size, size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    images = ImageSet((ArraySource(pixels, [0] * _NOISE_IMAGES),), preprocessing.transform(), seed=0)
    description = f"images of random noise, since no real ones are available ({why}; --img_root FOLDER gives some)"
    return SampledImages(description, images, range(_NOISE_IMAGES), labelled=False)
