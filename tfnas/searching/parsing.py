"""An architecture with what it costs: parameters, MACs and table milliseconds, part by part and in all.

The two JSON forms of a parsed architecture, written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.core.architecture import RUN_FILE, Architecture
from tfnas.core.blocks import Block, Conv, output_size
from tfnas.core.cost import COSTS, Cost
from tfnas.core.counts import Counts
from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json_file
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import default_table_path, other_machine
from tfnas.runs.architecture_source import UNFINISHED, Source, read_source
from tfnas.runs.run_directory import MODEL_CONFIG_FILE, write_forms
from tfnas.spaces.families import architecture_counts, part_counts
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.space_file import space_names
from tfnas.utils.text import typed

_TIMED_BATCHES = (1, 32)


@dataclass(frozen=True)
class NetworkPart:
    """A part of a network: `label` names its place, `layer` is its description (None: the classifier).

    `counts` are of one image; `table_ms` is None where the table does not tell it apart, or there is no table.
    """

    label: str
    layer: Conv | Block | None
    in_channels: int
    out_channels: int
    input_size: int
    counts: Counts
    table_ms: float | None


@dataclass(frozen=True)
class ParsedNetwork:
    """An architecture, where it was found, what it costs, and notes that a user should read."""

    architecture: Architecture
    source: Source
    parts: tuple[NetworkPart, ...]
    counts: Counts
    table: LatencyTable | None
    notes: tuple[str, ...]

    @property
    def timed_batches(self) -> list[int]:
        """Batch sizes to time: 1, 32 and, if it is known, that of the table."""
        of_table = None if self.table is None else self.table.batch_size
        return sorted({*_TIMED_BATCHES, *(() if of_table is None else (of_table,))})

    @property
    def target_ms(self) -> float | None:
        """The search's target in milliseconds; None where it is not known, or of another cost."""
        return self.source.target_ms

    @property
    def table_ms(self) -> float | None:
        """The network's latency in the table, in milliseconds per batch; None without a table of latencies."""
        if self.table is None or not self.table.cost.is_time:
            return None
        return self.table.architecture_ms(self.architecture)

    @property
    def cost(self) -> Cost:
        """What the search's target is of."""
        return COSTS[self.source.cost]

    @property
    def reached(self) -> float | None:
        """What the target is of, for this network: table latency, or its counts; None for a latency without a table."""
        return self.table_ms if self.cost.is_time else float(getattr(self.counts, self.cost.name))

    @property
    def error_percent(self) -> float | None:
        """What was reached minus the target, in percent of the target; None where either is not known."""
        if self.reached is None or self.source.target is None:
            return None
        return 100 * (self.reached / self.source.target - 1)


def parse_model(
    path: str | os.PathLike[str],
    *,
    lookup_path: str | os.PathLike[str] | None = None,
    space: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> ParsedNetwork:
    """Read a run directory, a checkpoint of a search (ours or the authors') or an architecture file, and price it.

    The table is the one at `lookup_path`, else the search's own, else the one shipped for the space, if it fits.
    `space` (a name or a YAML file) is what the network must be of; `image_size` and `num_classes` replace what was
    found. Raises InputError naming the file and what is wrong with it.
    """
    named_space = None if space is None else _named_space(space, image_size)
    source = read_source(Path(path), named_space)
    found = source.architecture
    architecture = dataclasses.replace(
        found, image_size=image_size or found.image_size, num_classes=num_classes or found.num_classes
    )
    if named_space is not None:
        _check_of_space(architecture, named_space, str(path))
    table, notes = _choose_table(architecture, source, lookup_path, space)
    parts = tuple(_parts(architecture, table if table is not None and table.cost.is_time else None))
    return ParsedNetwork(
        architecture=architecture,
        source=source if architecture == found else dataclasses.replace(source, finished_run=None),
        parts=parts,
        counts=architecture_counts(architecture),
        table=table,
        notes=(*source.notes, *notes),
    )


# ---- the space ------------------------------------------------------------------------------------------------------


def _named_space(name_or_path: str, image_size: int | None) -> SearchSpace:
    space = load_space(name_or_path)
    return space if image_size is None else space.at(image_size)


def _check_of_space(architecture: Architecture, space: SearchSpace, source: str) -> None:
    """Raise InputError naming what about the architecture is not in the space."""
    refusal = f"{source} is not a network of space {space.name}"
    fixed = (
        ("image_size", architecture.image_size, space.image_size),
        ("first stem", architecture.first_stem, space.first_stem),
        ("second stem", architecture.second_stem, space.second_stem),
        ("feature mix", architecture.feature_mix, space.feature_mix),
        ("number of stages", len(architecture.stages), len(space.stages)),
    )
    for name, found, wanted in fixed:
        if found != wanted:
            raise InputError(f"{refusal}: its {name} is {found}, the space's is {wanted}")
    for number, (blocks, depths) in enumerate(zip(architecture.stages, space.depth_choices, strict=True), 1):
        if len(blocks) not in depths:
            raise InputError(f"{refusal}: its stage {number} has {len(blocks)} blocks, the space's {depths}")
    for place in architecture.blocks:
        offered = space.blocks[space.first_blocks[place.stage] + place.position]
        try:
            space.operation_index(offered, place.block)
        except InputError as error:
            raise InputError(f"{refusal}: {error}") from error


# ---- the table ------------------------------------------------------------------------------------------------------


def _choose_table(
    architecture: Architecture, source: Source, lookup_path: str | os.PathLike[str] | None, space: str | None
) -> tuple[LatencyTable | None, tuple[str, ...]]:
    """The table to price with, and what to say about it. Raises InputError if the one asked for does not fit."""
    if lookup_path is not None:
        table = _fitting_table(Path(lookup_path), architecture)
        other = source.target is not None and table.fingerprint != source.table_fingerprint
        return table, ("the target was set with another table than this one",) if other else ()
    notes: tuple[str, ...] = ()
    if source.lookup_path is not None:
        try:
            table = _fitting_table(Path(source.lookup_path), architecture)
            if table.fingerprint == source.table_fingerprint:
                return table, ()
            notes = (f"{table.source} has changed since the search",)
        except InputError as error:
            notes = (f"the search's own table cannot be used: {error}",)
    for name in [space] if space else space_names():
        default = default_table_path(name)
        if default is not None:
            try:
                table = _fitting_table(default, architecture)
                elsewhere = other_machine(table)
                where = "" if elsewhere is None else f"; {elsewhere}"
                return table, (*notes, f"priced by the table shipped for space {name}{where}")
            except InputError:
                continue
    return None, (*notes, "no shipped latency table fits this network; give one with --lookup_path")


def _fitting_table(path: Path, architecture: Architecture) -> LatencyTable:
    table = LatencyTable.load(path)
    table.architecture_ms(architecture)
    return table


# ---- the parts ------------------------------------------------------------------------------------------------------


def _parts(architecture: Architecture, table: LatencyTable | None) -> Iterator[NetworkPart]:
    """Every part of the network in order."""
    base = {} if table is None else table.base_parts_ms(architecture.num_classes)
    counts = part_counts(architecture)

    def part(label: str, layer: Conv | Block, name: str, size: int, table_ms: float | None) -> NetworkPart:
        return NetworkPart(label, layer, layer.in_channels, layer.out_channels, size, counts[name], table_ms)

    first, second, mix = architecture.first_stem, architecture.second_stem, architecture.feature_mix
    yield part("stem 1", first, "first_stem", architecture.image_size, base.get("first_stem"))
    size = output_size(architecture.image_size, first.stride)
    yield part("stem 2", second, "second_stem", size, base.get("second_stem"))
    for place in architecture.blocks:
        block_ms = None if table is None else table.block_ms(place.block, place.input_size)
        name = f"stage{place.stage + 1}.{place.position}"
        yield part(f"{place.stage + 1}.{place.position + 1}", place.block, name, place.input_size, block_ms)
    size = architecture.feature_mix_size
    yield part("mix", mix, "feature_mix_layer", size, base.get("feature_mix"))
    classes, head_ms = architecture.num_classes, base.get("classifier")
    yield NetworkPart(
        "head", None, mix.out_channels, classes, output_size(size, mix.stride), counts["classifier"], head_ms
    )


def write_files(parsed: ParsedNetwork, save_path: str | None = None) -> tuple[Path, ...]:
    """Write the authors' form to `save_path` and ours beside it; returns both paths.

    Without `save_path` they go where the result of a finished run stands already, else to ./model.config, where they
    replace nothing; and what an unfinished search would derive now is not written at all, as it is no result. Ours is
    called architecture.json beside a model.config, and otherwise like the other one, ending in .json.

    Raises InputError for a path that cannot be meant, and where another network would be replaced without being asked
    for; RunFailed when a file cannot be written.
    """
    if save_path is None and parsed.source.kind == UNFINISHED:
        return ()
    authors = Path(save_path) if save_path else (parsed.source.finished_run or Path()) / MODEL_CONFIG_FILE
    if authors.is_dir():
        authors = authors / MODEL_CONFIG_FILE
    ours = authors.with_name(RUN_FILE) if authors.name == MODEL_CONFIG_FILE else authors.with_suffix(".json")
    if ours == authors:
        raise InputError(f"--save_path {authors}: .json is the ending of our own form; give model.config, for instance")
    if not authors.parent.is_dir():
        raise InputError(f"--save_path {authors}: there is no folder {authors.parent}; make it first")
    if save_path is None and parsed.source.finished_run is None:
        _check_nothing_replaced(parsed, ours, authors)
    write_forms(parsed.architecture, ours, authors)
    return authors, ours


def _check_nothing_replaced(parsed: ParsedNetwork, ours: Path, authors: Path) -> None:
    """Raise InputError where one of the files is there and says something else."""
    forms = ((ours, parsed.architecture.to_json()), (authors, parsed.architecture.to_model_config()))
    for path, form in forms:
        if path.exists() and not _holds(path, form):
            raise InputError(
                f"{path.absolute()} is there already and holds something else: --save_path {typed(authors)} replaces "
                "it, and another --save_path writes elsewhere"
            )


def _holds(path: Path, form: dict[str, Any]) -> bool:
    try:
        return bool(load_json_file(path) == json.loads(json.dumps(form)))
    except (OSError, InputError):
        return False
