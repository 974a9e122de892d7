"""What a search is given, opened and checked before anything is written: space, table, data, device; its batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tfnas.core.cost import COUNTED
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.data.data_config import default_space
from tfnas.data.image_batches import EpochBatches, ImageLoader, Share, loader
from tfnas.data.image_sets import Draw, ImageSet
from tfnas.data.opened_data import ImageData, open_data
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import open_table
from tfnas.latency.meet_target import check_target
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import State, saved_space, short_names
from tfnas.runs.run_settings import SEARCH_PATHS, SEARCH_RESCUES, fixed_settings, with_absolute_paths
from tfnas.searching.differentiable.search_config import Schedule, SearchConfig, space_schedule
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.space_file import space_arguments, space_names
from tfnas.utils.devices import named_device

LONG_EPOCH_STEPS = 100  # next to which evaluating two batches takes no time


@dataclass(frozen=True)
class SearchSetup:
    """Everything that a search is given; `space_flags` name its space on a command line."""

    config: SearchConfig
    space: SearchSpace
    space_flags: list[str]
    schedule: Schedule
    table: LatencyTable
    lookup_path: str | None
    data: ImageData
    processes: DistributedContext

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

    def effective(self) -> SearchConfig:
        """The configuration with every default of the space written out."""
        values: dict[str, Any] = {
            field.name: getattr(self.schedule, field.name)
            for field in dataclasses.fields(self.schedule)
            if field.name in {item.name for item in dataclasses.fields(SearchConfig)}
        }
        values["cost"] = self.table.cost.name
        config = dataclasses.replace(
            self.config,
            **values,
            data=self.data.name,
            space=self.config.space or self.space.name,
            lookup_path=self.lookup_path,
            width_multiple=self.space.width_multiple,
            device=str(self.device) if self.processes.world_size == 1 else self.config.device,
            resume=None,
        )
        named = {"space"} if config.space in space_names() else set()  # a folder may be called like a built-in space
        return with_absolute_paths(config, set(SEARCH_PATHS) - named)

    def state(self) -> State:
        """What a checkpoint stores of it, for a resumed run to compare."""
        return {
            "space": self.space.to_json(),
            "num_classes": self.data.num_classes,
            "data": self.data.describe(),
            "class_names": short_names(self.data.class_names),
            "data_fingerprint": self.data.fingerprint,
            "schedule": fixed_settings(self.schedule, SEARCH_RESCUES),
            "table_fingerprint": self.table.fingerprint,
            "lookup_path": self.lookup_path,
            "cost": self.table.cost.name,
            self.table.cost.target_key: self.target_ms,
        }

    def compared(self, state: State) -> Iterable[tuple[str, object, object]]:
        """What must be as in a checkpoint's `state`: its name, what it was and what it is."""
        cost, class_names = self.table.cost, short_names(self.data.class_names)
        schedule = fixed_settings(Schedule(), SEARCH_RESCUES) | state["schedule"]  # older runs lack some
        return (
            ("cost", state.get("cost", "ms"), cost.name),
            ("data", state["data"], self.data.describe()),
            ("set of images", state["data_fingerprint"], self.data.fingerprint),
            ("class names", state.get("class_names", class_names), class_names),  # earlier versions stored none
            ("table", state["table_fingerprint"], self.table.fingerprint),
            ("space", saved_space(state).fingerprint, self.space.fingerprint),
            ("target", state.get(cost.target_key), self.target_ms),
            ("schedule", schedule, fixed_settings(self.schedule, SEARCH_RESCUES)),
        )


def prepare(config: SearchConfig, processes: DistributedContext | None = None) -> SearchSetup:
    """Open and check it all, in one of several processes (default: this is the only one).

    Raises InputError for what does not fit together, and Infeasible when the target lies outside the space's range in
    the table.
    """
    processes = processes or DistributedContext(0, 1, named_device(config.device))
    if config.amp and processes.device.type != "cuda":
        raise InputError(f"--amp is for GPUs, and this search computes on {processes.device}: omit it")
    if config.amp and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError("--amp computes in bfloat16, which this GPU does not have: omit it")
    space = load_space(
        config.space or default_space(config), image_size=config.image_size, width_multiple=config.width_multiple
    )
    schedule = config.schedule(space_schedule(space, config.space))
    space_flags = space_arguments(space, config.space)
    if schedule.threads == 0:  # PyTorch's own number: the cores, or what OMP_NUM_THREADS says
        schedule = dataclasses.replace(schedule, threads=torch.get_num_threads())
    number, size = processes.world_size, schedule.batch_size
    if size < number:
        raise InputError(f"--batch_size {size} is the global batch size of {number} processes: use a larger one")
    if config.cost in COUNTED and config.lookup_path is None:
        from tfnas.latency.counted_table import counted_table

        table, lookup_path = counted_table(space, config.cost), None
    else:
        table, lookup_path = open_table(config.lookup_path, space, space_flags)
    if config.cost not in (None, table.cost.name):
        raise InputError(
            f"--cost is {config.cost}, but {table.source} contains {table.unit}: give only one of --cost and "
            "--lookup_path"
        )
    data = open_data(config, image_size=space.image_size, seed=config.seed)
    for name, images in (("weights", data.weights), ("architecture", data.architecture)):
        if len(images) < number:
            raise InputError(
                f"the {name} part has {len(images)} images, and {number} processes share them: use fewer processes"
            )
    check_target(space, table, config.target_lat, data.num_classes, named=config.space)
    return SearchSetup(config, space, space_flags, schedule, table, lookup_path, data, processes)


def shared_batches(setup: SearchSetup, images: ImageSet, *, turn: int, first: int = 0) -> ImageLoader:
    """This process's share of every batch of a part, in the order of turn number `turn`, from batch `first` on."""
    batches = shares(setup, images, turn=turn, first=first)
    return loader(images, batches, workers=setup.data.workers, device=setup.device)


def shares(setup: SearchSetup, images: ImageSet, *, turn: int, first: int = 0) -> EpochBatches:
    """Which images these are."""
    return EpochBatches(
        len(images),
        batch_size=setup.schedule.batch_size,
        epoch=turn,
        seed=setup.config.seed,
        # a run that was begun by fewer processes may have trained on a last batch that is left out now
        first_batch=min(first, setup.num_batches(images)),
        share=setup.processes.share,
        whole=len(images) % setup.schedule.batch_size < setup.processes.world_size,
    )


def held_out_batches(setup: SearchSetup, epoch: int, first: int) -> Iterator[list[Tensor]]:
    """Shares of batches of the architecture part, from number `first` of an epoch, over and over in new orders."""
    images: Any = setup.data.architecture
    turns_per_epoch = setup.steps_per_epoch  # more than an epoch can need
    turn, first = divmod(first, setup.num_batches(images))
    while True:
        yield from shared_batches(setup, images, turn=epoch * turns_per_epoch + turn, first=first)
        turn, first = turn + 1, 0


def evaluation_batches(setup: SearchSetup) -> ImageLoader:
    """The architecture part, as WholeBatches divides it among processes.

    Its order is drawn once for the whole run: where it stands class by class, so would batch statistics.
    """
    return loader(setup.data.architecture, _evaluated(setup), workers=setup.data.workers, device=setup.device)


def evaluation_batch_count(setup: SearchSetup) -> int:
    """How many batches these are."""
    return len(_evaluated(setup))


def _evaluated(setup: SearchSetup) -> WholeBatches:
    count, batch_size = len(setup.data.architecture), setup.schedule.batch_size
    return WholeBatches(count, batch_size, setup.processes.share, seed=setup.config.seed)


def probe_batches(setup: SearchSetup) -> ImageLoader:
    """Two batches of the architecture part, or one where an epoch is short, as WholeBatches divides them.

    They are drawn once for the whole run, because the part may stand in the order of its classes.
    """
    images, seed, number = setup.data.architecture, setup.config.seed, probe_batch_count(setup)
    batches = WholeBatches(len(images), setup.schedule.batch_size, setup.processes.share, seed=seed, most=number)
    return loader(images, batches, workers=setup.data.workers, device=setup.device)


def probe_images(setup: SearchSetup) -> int:
    """How many images those batches hold."""
    return min(len(setup.data.architecture), probe_batch_count(setup) * setup.schedule.batch_size)


def probe_batch_count(setup: SearchSetup) -> int:
    """How many batches of the architecture part are evaluated after every epoch."""
    return 2 if setup.steps_per_epoch >= LONG_EPOCH_STEPS else 1


class WholeBatches(EpochBatches):
    """The images in their own order, or one drawn with a seed: the processes take whole batches in turn.

    So batch statistics, and with them every answer, are those that one process would get. `most` is the number of
    batches that all of them take; default: all there are.
    """

    def __init__(
        self, count: int, batch_size: int, batch_share: Share, *, seed: int | None = None, most: int | None = None
    ) -> None:
        super().__init__(count, batch_size=batch_size, epoch=0, seed=seed)
        self.batch_share, self.most = batch_share, most

    def __len__(self) -> int:
        batches = super().__len__() if self.most is None else min(self.most, super().__len__())
        return len(range(self.batch_share.rank, batches, self.batch_share.processes))

    def __iter__(self) -> Iterator[list[Draw]]:
        return islice(super().__iter__(), self.batch_share.rank, self.most, self.batch_share.processes)
