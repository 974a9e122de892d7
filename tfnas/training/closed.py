"""`--inherit` of a directory that `tfnas latency close` made: its architecture, with the weights of its search."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from tfnas.errors import InputError
from tfnas.run import CONFIG_FILE, read_config
from tfnas.searching.checkpoint import search_checkpoints
from tfnas.training.config import TrainConfig


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
            f"--inherit {config.inherit}: its network was found by the search in {searched_in}, where no checkpoint is "
            f"left. Say where that search is: --inherit SEARCH_DIR --model_path {config.inherit}"
        )
    named = config.model_path or config.config_path
    return dataclasses.replace(config, inherit=searched_in, model_path=config.model_path if named else config.inherit)
