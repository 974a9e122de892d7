"""What retraining needs, opened and checked before anything is written: architecture, data, recipe, teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms import v2

from tfnas.architecture import RUN_FILE, Architecture
from tfnas.data.retrain_config import RetrainDataConfig, retrain_data_name
from tfnas.data.retraining import RetrainData, data_of_search, data_of_training, open_retrain_data, with_data
from tfnas.data.transforms import NORMALISATIONS
from tfnas.errors import InputError
from tfnas.parse.source import Source, read_source
from tfnas.run import CONFIG_FILE, read_config
from tfnas.searching.checkpoint import search_checkpoints
from tfnas.training.config import TrainConfig
from tfnas.training.processes import Processes
from tfnas.training.recipes import Recipe
from tfnas.training.teacher import Teacher, open_teacher

AUTHORS_CLASSES = 1000  # the authors' parser writes this number whatever the data


@dataclass(frozen=True)
class Setup:
    """Everything that a training run is given. `recorded` is what the search said of the architecture's latency."""

    config: TrainConfig
    architecture: Architecture
    recorded: dict[str, Any]
    recipe: Recipe
    data: RetrainData
    teacher: Teacher | None
    processes: Processes

    @property
    def steps_per_epoch(self) -> int:
        """Steps that an epoch takes; images that do not fill a batch wait for another epoch."""
        return len(self.data.train) // self.recipe.batch_size


def prepare(config: TrainConfig, processes: Processes, run_dir: Path | None = None) -> Setup:
    """Open and check it all; `run_dir` is that of a run that goes on, which holds its architecture.

    Raises InputError for what does not fit together.
    """
    if run_dir is None and config.inherit is not None and not search_checkpoints(Path(config.inherit)).saved():
        raise InputError(f"--inherit {config.inherit} is no run directory of a search: there is no checkpoint of one")
    source = read_source(_architecture_path(config, run_dir), None)
    found = source.architecture
    config = _with_data_of_search(config, found)
    image_size = config.image_size or found.image_size
    data = open_retrain_data(config, image_size=image_size, seed=config.seed, augmentations=_augmentations(config))
    _check_classes(found, data, config)
    recipe = config.recipe()
    if recipe.threads == 0:
        recipe = dataclasses.replace(recipe, threads=torch.get_num_threads())
    _check_batch(recipe.batch_size, config.accumulate, len(data.train), processes.number)
    teacher = None
    if config.teacher is not None:
        teacher = open_teacher(config.teacher, config.teacher_weights, data.preprocessing, data.num_classes)
    architecture = dataclasses.replace(found, image_size=image_size, num_classes=data.num_classes)
    return Setup(config, architecture, _recorded(source), recipe, data, teacher, processes)


def effective(setup: Setup) -> TrainConfig:
    """The configuration with every default written out."""
    recipe = dataclasses.asdict(setup.recipe)
    return dataclasses.replace(
        setup.config,
        **recipe,
        data=retrain_data_name(setup.config),
        image_size=setup.data.preprocessing.image_size,
        num_classes=setup.data.num_classes,
        device=setup.config.device if setup.processes.number > 1 else str(setup.processes.device),
        snapshot=None,
    )


def _architecture_path(config: TrainConfig, run_dir: Path | None) -> Path:
    if run_dir is not None and (run_dir / RUN_FILE).is_file():
        return run_dir / RUN_FILE
    path = config.model_path or config.config_path or config.inherit
    if path is None:
        raise InputError(f"{run_dir} names no architecture: it was stopped before it began; start a new run")
    return Path(path)


def _with_data_of_search(config: TrainConfig, found: Architecture) -> TrainConfig:
    """The configuration with the data of the run that it names, of a search or of training, unless it names its own."""
    search = config.model_path or config.inherit
    own = RetrainDataConfig(
        **{name: getattr(config, name) for name in ("data", "train_root", "train_list", "val_list")}
    )
    if search is None or own != RetrainDataConfig() or not (Path(search) / CONFIG_FILE).is_file():
        return config
    saved = read_config(Path(search))
    if "train_root" in saved:
        return dataclasses.replace(config, **with_data(config, data_of_training(saved, search)))
    return dataclasses.replace(config, **with_data(config, data_of_search(saved, found.image_size, found.num_classes)))


def _recorded(source: Source) -> dict[str, Any]:
    return {name: getattr(source, name) for name in ("target_ms", "lookup_path", "table_fingerprint")}


def _augmentations(config: TrainConfig) -> Sequence[nn.Module]:
    """What --auto_augment and --random_erasing add, on uint8 images; erased is the data's mean colour."""
    chosen: list[nn.Module] = []
    if config.auto_augment != "none":
        chosen.append(v2.RandAugment() if config.auto_augment == "rand" else v2.TrivialAugmentWide())
    if config.random_erasing:
        mean = NORMALISATIONS[retrain_data_name(config)].mean
        chosen.append(v2.RandomErasing(p=config.random_erasing, value=[round(255 * value) for value in mean]))
    return chosen


def _check_classes(architecture: Architecture, data: RetrainData, config: TrainConfig) -> None:
    if architecture.num_classes in (data.num_classes, AUTHORS_CLASSES) or config.num_classes is not None:
        return
    raise InputError(
        f"the architecture has {architecture.num_classes} classes, the data ({data.name}) has {data.num_classes}: "
        f"say --num_classes {data.num_classes} to give it another classifier, or name the data that it was searched on"
    )


def _check_batch(batch_size: int, accumulate: int, images: int, number: int) -> None:
    if batch_size % number:
        raise InputError(
            f"--batch_size {batch_size} is over all processes and cannot be divided by {number} of them: "
            f"give a multiple of {number}"
        )
    if batch_size % (number * accumulate):
        raise InputError(
            f"--batch_size {batch_size} over {number} processes cannot be divided into --accumulate {accumulate} pieces"
        )
    if batch_size > images:
        raise InputError(f"--batch_size {batch_size} is more than the {images} training images: give a smaller one")
