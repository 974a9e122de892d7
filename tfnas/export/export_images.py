"""The pictures that an exported file is checked and calibrated on, and the words for where they come from."""

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
from tfnas.data.data_config import RetrainDataConfig
from tfnas.data.image_files import IMAGE_SUFFIXES
from tfnas.data.image_sets import ArraySource, FileSource, ImageSet, ImageSource
from tfnas.data.opened_data import RetrainData, open_retrain_data, run_images
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_config import ExportConfig
from tfnas.runs.model_file import TrainedModel
from tfnas.runs.run_directory import CONFIG_FILE

_NOISE_IMAGES = 64
_DIGITS = tuple("0123456789")
_WANTED = "int8 is calibrated on real images: give some with --img_root FOLDER"

Item = tuple[ImageSource, int]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures as the network gets them, without augmentation. `words` says what they are."""

    words: str
    items: Sequence[Item]
    preprocessing: Preprocessing
    labelled: bool

    def __len__(self) -> int:
        return len(self.items)

    def first(self, count: int) -> Pictures:
        """The first so many of them."""
        return dataclasses.replace(self, items=self.items[:count])

    def labels(self) -> Tensor:
        """The label of every picture, int64."""
        return torch.tensor([source.labels[index] for source, index in self.items])

    def pixels(self, batch_size: int) -> Iterator[Tensor]:
        """Batches of uint8 N x 3 x S x S, the last may be smaller. Raises InputError naming a damaged file."""
        for start in range(0, len(self), batch_size):
            batch = self.items[start : start + batch_size]
            yield torch.stack([self.preprocessing.cut(source.read(index)) for source, index in batch])


@dataclass(frozen=True, eq=False)
class ExportImages:
    """What a file is checked on, and what int8 is calibrated on (None where there is nothing real)."""

    check: Pictures
    calibration: Pictures | None


def open_images(config: ExportConfig, model: TrainedModel, preprocessing: Preprocessing) -> ExportImages:
    """The pictures in --img_root, else those of the training run, else the embedded digits or noise.

    Raises InputError when --img_root holds none, or when int8 is wanted and there are no real ones.
    """
    if config.img_root is not None:
        return _of_folder(Path(config.img_root), config, model, preprocessing)
    place = Path(config.place)
    run = place if os.path.isdir(place) else place.parent  # noqa: PTH112 - answers "no" where Path.is_dir raises
    why = "a model without its run has no images"
    try:
        if (run / CONFIG_FILE).is_file():
            return _of_run(run_images(run), "of the run", config, model, preprocessing)
    except InputError as error:
        why = str(error)
    if model.data == "digits" and model.class_names == _DIGITS:
        data = open_retrain_data(
            RetrainDataConfig(data="digits"), image_size=preprocessing.image_size, seed=config.seed
        )
        return _of_run(data, "of the embedded digits", config, model, preprocessing)
    if config.quantize:
        raise InputError(f"{_WANTED} ({why})")
    return ExportImages(_noise(preprocessing, why, config.seed), None)


def _of_run(
    data: RetrainData, whose: str, config: ExportConfig, model: TrainedModel, preprocessing: Preprocessing
) -> ExportImages:
    """Check on the test part, or on training images where there is none; calibrate on training images."""
    if data.class_names != model.class_names:
        raise InputError(f"the images {whose} have other classes now than the model")
    training = _items(data.train)
    if data.validation is None:
        checked, words = training, f"training images {whose}, which has no test part"
    else:
        checked, words = _items(data.validation), f"test images {whose}"
    calibration = _drawn(training, config.calibration_images, config.seed)
    return ExportImages(
        Pictures(words, _drawn(checked, config.check_images, config.seed), preprocessing, labelled=True),
        Pictures(f"training images {whose}", calibration, preprocessing, labelled=True),
    )


def _of_folder(root: Path, config: ExportConfig, model: TrainedModel, preprocessing: Preprocessing) -> ExportImages:
    """All pictures under a folder; for int8 one half calibrates and the other is checked on."""
    if not os.path.isdir(root):  # noqa: PTH112
        raise InputError(f"img_root is {root}: there is no such folder; give one that holds pictures")
    names = sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(path) and not path.name.startswith(".")  # noqa: PTH113
    )
    least = 2 if config.quantize else 1
    if len(names) < least:
        raise InputError(f"img_root is {root}: it holds {len(names)} pictures; {least} or more are needed")
    numbers = {name: number for number, name in enumerate(model.class_names)}
    labels = [numbers.get(Path(name).parts[0], -1) for name in names]
    items: list[Item] = [(FileSource(root, names, labels), index) for index in range(len(names))]
    random.Random(config.seed).shuffle(items)
    half = min(config.calibration_images, len(items) // 2) if config.quantize else 0
    calibration, rest = items[:half], items[half : half + config.check_images]
    words, labelled = f"pictures in {root}", min(labels) >= 0
    return ExportImages(
        Pictures(words, rest, preprocessing, labelled),
        Pictures(words, calibration, preprocessing, labelled) if half else None,
    )


def _noise(preprocessing: Preprocessing, why: str, seed: int) -> Pictures:
    size = preprocessing.image_size
    shape = (_NOISE_IMAGES, IMAGE_CHANNELS, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    source = ArraySource(images, [0] * _NOISE_IMAGES)
    words = f"images of noise, for want of real ones ({why}; --img_root FOLDER gives some)"
    return Pictures(words, [(source, index) for index in range(_NOISE_IMAGES)], preprocessing, labelled=False)


def _items(images: ImageSet) -> list[Item]:
    return [(source, index) for source in images.sources for index in range(len(source.labels))]


def _drawn(items: list[Item], count: int, seed: int) -> list[Item]:
    """So many of them, drawn without favour, the same ones for the same seed."""
    return items if count >= len(items) else random.Random(seed).sample(items, count)
