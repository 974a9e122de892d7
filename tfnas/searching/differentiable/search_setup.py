"""What a search needs, opened and checked before anything is written: space, table, data, device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch

from tfnas.bench.counted_table import counted_table
from tfnas.core.cost import COUNTED
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.data.data_config import data_name, default_space
from tfnas.data.opening import ImageData, open_data
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import is_default, open_table, search_remarks
from tfnas.latency.meet_target import check_target
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.resumption import with_absolute_paths
from tfnas.searching.differentiable.schedule import Schedule, space_schedule
from tfnas.searching.differentiable.search_config import PATHS, SearchConfig
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.space_file import space_arguments, space_names
from tfnas.utils.devices import named_device


@dataclass(frozen=True)
class Setup:
    """Everything that a search is given."""

    config: SearchConfig
    space: SearchSpace
    schedule: Schedule
    table: LatencyTable
    lookup_path: str | None
    data: ImageData
    processes: DistributedContext
    remarks: tuple[str, ...] = ()
    """What to know about where the table's figures hold."""

    @property
    def target_ms(self) -> float:
        """The target: milliseconds, or what else the table counts."""
        return self.config.target_lat

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device

    @property
    def steps_per_epoch(self) -> int:
        """Weight steps of an epoch: the batches of the weight part."""
        return self.num_batches(self.data.weights)

    def num_batches(self, images: Sized) -> int:
        """Batches that a part makes, of which the last may be smaller.

        One that is too small to hold an image for every process is left out: they wait for another epoch.
        """
        batches, rest = divmod(len(images), self.schedule.batch_size)
        return batches + (rest >= self.processes.world_size)


def prepare(config: SearchConfig, processes: DistributedContext | None = None) -> Setup:
    """Open and check it all, in one of several processes (default: this is the only one).

    Raises InputError for what does not fit together, and Infeasible when the target lies outside the space's range in
    the table.
    """
    processes = processes or DistributedContext(0, 1, named_device(config.device))
    if config.amp and processes.device.type != "cuda":
        raise InputError(f"--amp is for GPUs, and this search computes on {processes.device}: leave it out")
    if config.amp and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError("--amp computes in bfloat16, which this GPU does not have: leave it out")
    space = load_space(config.space or default_space(config))
    if config.image_size is not None:
        space = space.at(config.image_size)
    if config.width_multiple is not None:
        space = space.in_multiples_of(config.width_multiple)
    schedule = config.schedule(space_schedule(space, config.space))
    if schedule.threads == 0:  # PyTorch's own number: the cores, or what OMP_NUM_THREADS says
        schedule = dataclasses.replace(schedule, threads=torch.get_num_threads())
    table, lookup_path = _open_table(config, space)
    data = open_data(config, image_size=space.image_size, seed=config.seed)
    check_target(space, table, config.target_lat, data.num_classes, named=config.space)
    _check_shares(schedule.batch_size, data, processes.world_size)
    flags = space_arguments(space, config.space)
    remarks = search_remarks(table, shipped=is_default(lookup_path, space), space=flags)
    return Setup(config, space, schedule, table, lookup_path, data, processes, remarks)


def effective(setup: Setup) -> SearchConfig:
    """The configuration with every default of the space written out."""
    values: dict[str, Any] = {
        field.name: getattr(setup.schedule, field.name)
        for field in dataclasses.fields(setup.schedule)
        if field.name in {item.name for item in dataclasses.fields(SearchConfig)}
    }
    values["cost"] = setup.table.cost.name
    config = dataclasses.replace(
        setup.config,
        **values,
        data=data_name(setup.config),
        space=setup.config.space or setup.space.name,
        lookup_path=setup.lookup_path,
        width_multiple=setup.space.width_multiple,
        device=str(setup.device) if setup.processes.world_size == 1 else setup.config.device,
        resume=None,
    )
    named = {"space"} if config.space in space_names() else set()  # a folder may be called like a built-in space
    return with_absolute_paths(config, set(PATHS) - named)


def _open_table(config: SearchConfig, space: SearchSpace) -> tuple[LatencyTable, str | None]:
    """The table of the cost asked for, and its path if it is a file.

    Raises InputError where a table is named that counts something else.
    """
    if config.cost in COUNTED and config.lookup_path is None:
        return counted_table(space, config.cost), None
    table, lookup_path = open_table(config.lookup_path, space, config.space or space.name)
    if config.cost not in (None, table.cost.name):
        raise InputError(
            f"--cost is {config.cost}, but {table.source} holds {table.unit}: leave one of --cost and --lookup_path out"
        )
    return table, lookup_path


def _check_shares(batch_size: int, data: ImageData, number: int) -> None:
    """Raise InputError unless there is an image for every process in a batch, and such a batch in both parts."""
    if batch_size < number:
        raise InputError(f"--batch_size {batch_size} is over all processes, and {number} of them share it: give more")
    for name, images in (("weights", data.weights), ("architecture", data.architecture)):
        if len(images) < number:
            raise InputError(
                f"the {name} part has {len(images)} images, and {number} processes share them: start fewer processes"
            )
