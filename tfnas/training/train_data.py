"""Which images a training run uses: those of the run that it names, with what the user says in their place.

The evaluation images stay those that the search has set aside: all others it has trained or chosen on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.data.data_config import RetrainDataConfig
from tfnas.data.retrain_data import data_of_search, data_of_training, with_overrides
from tfnas.runs.resumption import merged_settings
from tfnas.runs.run_directory import CHECKPOINT_FOLDER, CONFIG_FILE, read_config, search_checkpoints
from tfnas.runs.run_settings import SETTINGS
from tfnas.training.train_config import TrainConfig

_WHICH = ("data", "train_root", "val_root", "train_list", "val_list")
_FLAGS = ("model_path", "inherit")
_DECIDES_IMAGES = {"data", "val_ratio", "test_ratio", "image_size", "num_classes"}
"""The settings of a search that decide which images it has set aside, wherever these lie."""


def with_named_data(config: TrainConfig, found: NetworkArchitecture, given: Collection[str] | None) -> TrainConfig:
    """The configuration with the data of the run that it names, of a search or of training.

    `given` names the settings that the user said, which go before (default: those that differ from their defaults).
    Raises InputError where nothing says which images, or where evaluation images would be ones of the search.
    """
    named = {flag: path for flag in _FLAGS if (path := getattr(config, flag)) is not None}
    if not named:
        return config
    own = {item.name: getattr(config, item.name) for item in dataclasses.fields(RetrainDataConfig)}
    defaults = {item.name: item.default for item in dataclasses.fields(RetrainDataConfig)}
    said = {
        name: value
        for name, value in own.items()
        if value is not None and (value != defaults[name] if given is None else name in given)
    }
    searched = {flag: data for flag, path in named.items() if (data := _run_data(path, found)) is not None}
    if searched:
        config = dataclasses.replace(config, **with_overrides(next(iter(searched.values())), said))
    elif not said.keys() & set(_WHICH):
        flag, path = next(iter(named.items()))
        raise InputError(
            f"--{flag} {path}: there is no run directory that would say its images: name them with --data (digits, "
            "folder, list, cifar10 or cifar100) and --train_root"
        )
    for flag, data in searched.items():
        _check_set_aside(config, data, f"--{flag} {named[flag]}")
    return config


def _run_data(path: str, found: NetworkArchitecture) -> RetrainDataConfig | None:
    """The data of the run in this directory, or of that which this file lies in; None where there is none."""
    place = Path(path)
    if not os.path.isdir(place):  # noqa: PTH112 - answers "no" where Path.is_dir raises
        place = place.parent.parent if place.parent.name == CHECKPOINT_FOLDER else place.parent
    if not os.path.isfile(place / CONFIG_FILE):  # noqa: PTH113
        return None
    saved = read_config(place)
    if "train_root" in saved:
        return data_of_training(saved, str(place))
    saved = _as_searched(saved, place)
    if saved.get("data") is None:  # a search always says it; a lone architecture, brought to its target, had none
        return None
    return data_of_search(saved, found.image_size, found.num_classes)


def _as_searched(written: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The settings of a search: what its config.yaml lacks, its checkpoint has.

    Raises InputError where they differ: which images were set aside depends on them.
    """
    try:
        state, _, _ = search_checkpoints(run_dir).load_latest()
    except (InputError, OSError):  # none is left, or none can be read: what was written is all that there is
        return written
    return merged_settings(written, state.get(SETTINGS, {}), run_dir, may_change=written.keys() - _DECIDES_IMAGES)


def _check_set_aside(config: RetrainDataConfig, searched: RetrainDataConfig, source: str) -> None:
    """Raise InputError where the evaluation part of a folder is larger than what the search had set aside.

    A smaller part is a part of that one.
    """
    if {config.data_kind, searched.data_kind} != {"folder"} or config.val_root is not None:
        return
    if config.test_ratio > searched.test_ratio:
        raise InputError(
            f"--test_ratio {config.test_ratio:g} is more than the {searched.test_ratio:g} of every class that "
            f"{source} set aside: accuracy would be measured on images used by the search. Omit the flag, or give "
            "another evaluation folder with --val_root"
        )
