"""The images of a trained model: those of the training run that it belongs to, opened as the run had them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from tfnas.data.data_config import RetrainDataConfig
from tfnas.data.opened_data import RetrainData, data_of_training, open_retrain_data
from tfnas.runs.run_directory import CONFIG_FILE, read_config


def enclosing_run(path: Path) -> Path | None:
    """The run directory that a path names, or that a file lies in; None where there is none."""
    folder = path if os.path.isdir(path) else path.parent  # noqa: PTH112 - answers "no" where Path.is_dir raises
    return folder if os.path.isfile(folder / CONFIG_FILE) else None  # noqa: PTH113


def run_images(run_dir: Path) -> RetrainData:
    """The images of a training run, opened as it had them. Raises InputError when it is none, or they are gone."""
    saved = read_config(run_dir)
    config, seed = data_of_training(saved, str(run_dir)), saved.get("seed")
    assert config.image_size is not None
    return open_retrain_data(config, image_size=config.image_size, seed=seed if isinstance(seed, int) else 0)


def bundled_images(class_names: tuple[str, ...], image_size: int) -> RetrainData:
    """The bundled digits, for a model that was trained on them and has left its run.

    Their classes are called as the model calls them, if it has as many.
    """
    digits = open_retrain_data(RetrainDataConfig(data="digits"), image_size=image_size, seed=0)
    same = len(class_names) == digits.num_classes
    return dataclasses.replace(digits, class_names=class_names) if same else digits
