"""What a search needs, opened and checked before anything is written: space, table, data, device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from tfnas.data import ImageData, default_space, open_data
from tfnas.device import named_device
from tfnas.errors import InputError
from tfnas.latency import LatencyTable, default_table_path
from tfnas.latency.default import shipped_table_paths
from tfnas.latency.meet import check_target
from tfnas.searching.config import SearchConfig
from tfnas.space import Schedule, SearchSpace
from tfnas.space_file import space as load_space
from tfnas.wording import typed


@dataclass(frozen=True)
class Setup:
    """Everything that a search is given."""

    config: SearchConfig
    space: SearchSpace
    schedule: Schedule
    table: LatencyTable
    lookup_path: str
    data: ImageData
    device: torch.device

    @property
    def target_ms(self) -> float:
        """The target latency."""
        return self.config.target_lat


def prepare(config: SearchConfig) -> Setup:
    """Open and check it all.

    Raises InputError for what does not fit together, and Infeasible when the target lies outside the space's range in
    the table.
    """
    device = named_device(config.device)
    space = load_space(config.space or default_space(config))
    if config.image_size is not None:
        space = space.at(config.image_size)
    schedule = config.schedule(space.schedule)
    if schedule.threads == 0:  # PyTorch's own number: the cores, or what OMP_NUM_THREADS says
        schedule = dataclasses.replace(schedule, threads=torch.get_num_threads())
    table, lookup_path = open_table(config.lookup_path, space, config.space or space.name)
    data = open_data(config, image_size=space.image_size, seed=config.seed)
    check_target(space, table, config.target_lat)
    return Setup(config, space, schedule, table, lookup_path, data, device)


def open_table(lookup_path: str | None, space: SearchSpace, named: str) -> tuple[LatencyTable, str]:
    """The table at a path, or the one shipped for the space, checked against the space; and its path.

    `named` is what the user calls the space, for the message.

    Raises InputError when there is none or when it is for another space.
    """
    path = lookup_path or default_table_path(space.name) or _fitting_table(space)
    if path is None:
        raise InputError(
            f"no latency table comes with space {space.name}: give one with --lookup_path, "
            f"or measure one with: python -m tfnas latency build --space {typed(named)} --out {space.name}_latency.json"
        )
    table = LatencyTable.load(path)
    table.check(space)
    return table, str(path)


def _fitting_table(space: SearchSpace) -> Path | None:
    """The first table that comes along and prices all of the space, as it does for a part of a built-in one."""
    for path in shipped_table_paths():
        try:
            LatencyTable.load(path).check(space)
        except InputError:
            continue
        return path
    return None
