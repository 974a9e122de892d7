"""What training is given, opened and checked before anything is written: architecture, data, recipe, teacher.

Of a run that is resumed by --snapshot too, where what the user names now must be what the run had.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms import v2

from tfnas.core.architecture import RUN_FILE
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.data.preprocessing import NORMALISATIONS
from tfnas.data.retrain_data import RetrainData, open_retrain_data
from tfnas.runs.architecture_source import UNFINISHED, ArchitectureSource, named_source, path_source
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.named_network import named_flags
from tfnas.runs.resumption import resumed_config, saved_settings
from tfnas.runs.run_directory import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    Checkpoints,
    State,
    read_config,
    search_checkpoints,
    short_names,
)
from tfnas.runs.run_settings import fixed_settings, with_absolute_paths
from tfnas.spaces.families import cost_parts, load_architecture
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.training.teacher import Teacher, open_teacher
from tfnas.training.train_config import KIND, MAY_CHANGE, PATHS, RESCUES, Recipe, TrainConfig
from tfnas.training.train_data import with_named_data

AUTHORS_CLASSES = 1000  # the authors' parser writes this number whatever the data


@dataclass(frozen=True)
class TrainSetup:
    """Everything that a training run is given.

    `recorded` is the search's target and table, `notes` are what the user should be warned of.
    """

    config: TrainConfig
    architecture: NetworkArchitecture
    recorded: dict[str, Any]
    recipe: Recipe
    data: RetrainData
    teacher: Teacher | None
    processes: DistributedContext
    notes: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Steps that an epoch takes; images that do not fill a batch wait for another epoch."""
        return len(self.data.train) // self.recipe.batch_size

    def effective(self) -> TrainConfig:
        """The configuration with every default written out, and with absolute paths."""
        recipe = dataclasses.asdict(self.recipe)
        config = dataclasses.replace(
            self.config,
            **recipe,
            data=self.config.data_kind,
            image_size=self.data.preprocessing.image_size,
            num_classes=self.data.num_classes,
            device=self.config.device if self.processes.world_size > 1 else str(self.processes.device),
            snapshot=None,
        )
        config = with_absolute_paths(config, set(PATHS) - {"train_list"})
        if config.train_list is None:
            return config
        lists = ",".join(str(Path(listing).resolve()) for listing in config.train_list.split(","))
        return dataclasses.replace(config, train_list=lists)

    def state(self) -> State:
        """What a checkpoint stores of it, and may not change while a run is resumed."""
        return {
            "architecture": self.architecture.to_text(),
            "data": self.data.saved_form(),
            "images": self.data.fingerprint,
            "class names": short_names(self.data.class_names),
            "teacher": "none" if self.teacher is None else self.teacher.digest,
            "recipe": fixed_settings(self.recipe, RESCUES),
        }


def prepare(
    config: TrainConfig,
    processes: DistributedContext,
    run_dir: Path | None = None,
    given: Collection[str] | None = None,
) -> TrainSetup:
    """Open and check it all.

    `run_dir` is that of a run that goes on, which holds its architecture and whose configuration says all; `given`
    names the settings that were said (default: those that differ from their defaults).

    Raises InputError for what does not fit together.
    """
    if run_dir is None:
        config = at_its_search(config)
    if run_dir is None and config.inherit is not None:
        _check_search(config.inherit)
    source = _source(config, run_dir)
    found = source.architecture
    if run_dir is None:
        config = with_named_data(config, found, given)
    image_size = config.image_size or found.image_size
    data = open_retrain_data(config, image_size=image_size, seed=config.seed, augmentations=_augmentations(config))
    _check_classes(found, data, config)
    recipe = config.recipe()
    if recipe.threads == 0:
        recipe = dataclasses.replace(recipe, threads=torch.get_num_threads())
    _check_batch(recipe.batch_size, config.accumulate, len(data.train), processes.world_size)
    architecture = found.adapted(image_size=image_size, num_classes=data.num_classes)
    _check_images(architecture)
    _check_statistics(architecture, recipe.batch_size, config, processes.world_size)
    teacher = None
    if config.teacher is not None:
        names = data.class_names
        teacher = open_teacher(config.teacher, config.teacher_weights, data.preprocessing, names, recipe.threads)
    recorded, notes = _recorded(source), _notes(source, config, data)
    return TrainSetup(config, architecture, recorded, recipe, data, teacher, processes, notes)


def at_its_search(config: TrainConfig) -> TrainConfig:
    """The configuration with `inherit` at the search, where it names a closed loop; else as it is.

    The supernet holds the channels of every width, so a network whose widths were fitted again inherits too.
    Raises InputError when the search is no longer where it was.
    """
    if config.inherit is None or not os.path.isfile(Path(config.inherit) / CONFIG_FILE):  # noqa: PTH113 - Path raises for long names
        return config
    searched_in = read_config(Path(config.inherit)).get("searched_in")
    if not isinstance(searched_in, str):
        return config
    if not search_checkpoints(Path(searched_in)).saved():
        raise InputError(
            f"--inherit {config.inherit}: its network comes from the search in {searched_in}, which has no checkpoints "
            f"any more. Give the search's location: --inherit SEARCH_DIR --model_path {config.inherit}"
        )
    named = named_flags(config)
    return dataclasses.replace(config, inherit=searched_in, model_path=config.model_path if named else config.inherit)


def _check_search(run_dir: str) -> None:
    try:
        found = search_checkpoints(Path(run_dir)).saved()
    except OSError:  # a name that is too long, a folder that may not be entered
        found = []
    if not found:
        raise InputError(f"--inherit {run_dir} is no run directory of a search: there is no checkpoint of one")


def _recorded(source: ArchitectureSource) -> dict[str, Any]:
    """Target and table; a network of an unfinished search has not been brought to its target."""
    if source.kind != UNFINISHED:
        return source.recorded
    return {name: None if name.startswith("target") else value for name, value in source.recorded.items()}


def _notes(source: ArchitectureSource, config: TrainConfig, data: RetrainData) -> tuple[str, ...]:
    """What the user should know of architecture and images, but for what a flag has settled."""
    notes = [note.partition("; override with --space")[0] for note in source.notes]  # there is no such flag here
    if config.image_size is not None:
        notes = [note for note in notes if "--image_size" not in note]
    both = data.evaluation_images_in_training()
    if both and data.validation is not None:
        notes.append(
            f"{both} of the {len(data.validation)} evaluation images are also training images: the accuracy on them "
            "means little"
        )
    return tuple(notes)


def _source(config: TrainConfig, run_dir: Path | None) -> ArchitectureSource:
    """The architecture of a run that goes on, or of a new one, and what stands beside it."""
    if run_dir is not None and (run_dir / RUN_FILE).is_file():
        return path_source(run_dir / RUN_FILE)
    if named_flags(config):
        return named_source(config)
    if config.inherit is None:
        raise InputError(f"{run_dir} names no architecture: it was stopped before it began; start a new run")
    return path_source(config.inherit)


def _augmentations(config: TrainConfig) -> Sequence[nn.Module]:
    """What --auto_augment and --random_erasing add, on uint8 images; erased is the data's mean colour."""
    chosen: list[nn.Module] = []
    if config.auto_augment != "none":
        chosen.append(v2.RandAugment() if config.auto_augment == "rand" else v2.TrivialAugmentWide())
    if config.random_erasing:
        mean = NORMALISATIONS[config.data_kind].mean
        chosen.append(v2.RandomErasing(p=config.random_erasing, value=[round(255 * value) for value in mean]))
    return chosen


def _check_classes(architecture: NetworkArchitecture, data: RetrainData, config: TrainConfig) -> None:
    if architecture.num_classes in (data.num_classes, AUTHORS_CLASSES) or config.num_classes is not None:
        return
    raise InputError(
        f"the architecture has {architecture.num_classes} classes, the data ({data.name}) has {data.num_classes}: "
        f"use --num_classes {data.num_classes} to give it another classifier, or name the data that it was searched on"
    )


def _check_images(architecture: NetworkArchitecture) -> None:
    if isinstance(architecture, StructureArchitecture) and architecture.is_video:
        raise InputError("the architecture takes videos: it can be searched, scored and counted, not trained")
    if architecture.in_channels != IMAGE_CHANNELS:
        raise InputError(
            f"the architecture takes images of {architecture.in_channels} channels, pictures have {IMAGE_CHANNELS}: "
            "it can be searched, scored and counted, not trained"
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


def _check_statistics(architecture: NetworkArchitecture, batch_size: int, config: TrainConfig, number: int) -> None:
    """Raise InputError where batch norm would have a single value per channel."""
    alone = batch_size == number * config.accumulate and not (config.sync_bn and number > 1)
    if alone and cost_parts(architecture)[-1].input_size == 1:
        raise InputError(
            f"--batch_size {batch_size} leaves one image per micro-batch, and the last feature maps are 1 x 1 at "
            f"{architecture.image_size} px: batch norm cannot compute statistics. Give a larger --batch_size or "
            "--image_size, or fewer micro-batches by --accumulate"
        )


FLOAT32_PROGRAM = "train_eval.py"


def resumed_run(
    config: TrainConfig, given: Collection[str] | None, program: str
) -> tuple[TrainConfig, Path, str | None]:
    """The run's own configuration, with what was said now where that may change, its directory, and a remark on both.

    Raises InputError where there is no such run, or where something else is named than it had.
    """
    assert config.snapshot is not None
    run_dir = run_of_snapshot(config.snapshot)
    saved = saved_settings(run_dir, Checkpoints(run_dir, KIND), TrainConfig, may_change=MAY_CHANGE)
    config = resumed_config(config, saved.current, given, may_change=MAY_CHANGE)
    if program == FLOAT32_PROGRAM and config.opt_level != "O0":
        raise InputError(
            f"the run computes in {config.opt_level}, {program} in float32 only: resume with train_eval_amp.py, or use "
            "--opt_level O0 to change it"
        )
    return _with_own_sources(config, saved.begun_with, run_dir), run_dir, saved.remark


def run_of_snapshot(snapshot: str) -> Path:
    """The run directory that --snapshot names, itself or by a checkpoint in it."""
    path = Path(snapshot)
    if os.path.isdir(path):  # noqa: PTH112 - answers "no" where Path.is_dir raises
        return path
    if not os.path.isfile(path):  # noqa: PTH113
        raise InputError(f"--snapshot {path}: there is no such run directory or checkpoint")
    if path.parent.name != CHECKPOINT_FOLDER:
        raise InputError(
            f"--snapshot {path} is not in a run directory of this program; a trained network's weights alone do not "
            "say how to go on"
        )
    newest = Checkpoints(path.parent.parent, KIND).saved()[:1]
    if newest != [path]:
        raise InputError(f"--snapshot {path} is not the run's newest checkpoint; --snapshot {path.parent.parent} is")
    return path.parent.parent


def _with_own_sources(config: TrainConfig, saved: Mapping[str, Any], run_dir: Path) -> TrainConfig:
    """The configuration with the run's own architecture and weights, once those named now are found to be the same."""
    config = at_its_search(config)
    for name in ("model_path", "config_path"):
        said, own = getattr(config, name), saved.get(name)
        if said is not None and not _same_place(said, own):
            _check_architecture(f"--{name}", said, run_dir)
    said, own = config.inherit, saved.get("inherit")
    if said is not None and not _same_place(said, own) and (own is None or os.path.exists(own)):  # noqa: PTH110
        began = "fresh weights" if own is None else f"those of {own}"
        raise InputError(
            f"--inherit {said}: the run began with {began}; omit the flag, correct inherit in {CONFIG_FILE} if it "
            "stands there, or start a new run"
        )
    return dataclasses.replace(
        config, inherit=said or own, model_path=saved.get("model_path"), config_path=saved.get("config_path")
    )


def _same_place(said: str, own: str | None) -> bool:
    return own is not None and os.path.realpath(said) == os.path.realpath(own)


def _check_architecture(flag: str, path: str, run_dir: Path) -> None:
    """Raise InputError unless the file or directory holds the architecture that the run trains."""
    if not os.path.isfile(run_dir / RUN_FILE):  # noqa: PTH113 - it was stopped before it was written
        return
    own, other = load_architecture(run_dir / RUN_FILE), path_source(path).architecture
    other = other.adapted(image_size=own.image_size, num_classes=own.num_classes)
    if other != own:
        raise InputError(
            f"{flag} {path} contains a different architecture than the run trains: omit the flag, or start a new run"
        )
