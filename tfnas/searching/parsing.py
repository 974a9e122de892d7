"""Reading an architecture and its costs (parameters, MACs, table latency, by part and in total), and writing it out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfnas.core.architecture import RUN_FILE, Architecture
from tfnas.core.cost import COSTS, Cost
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.core.json_yaml import load_json_file
from tfnas.core.mbconv_blocks import Block, Conv, output_size
from tfnas.core.space import SearchSpace
from tfnas.core.units import CostPart, Counts, Unit
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import default_table_path, other_machine
from tfnas.latency.structure_table import AnyTable, StructureTable, load_table
from tfnas.runs.architecture_source import UNFINISHED, ArchitectureSource, arch_source, read_source
from tfnas.runs.run_directory import write_forms
from tfnas.spaces.families import architecture_counts, cost_parts, original_form, part_counts, to_document
from tfnas.spaces.mbconv.mbconv_family import check_of_space
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.space_file import space_names
from tfnas.spaces.zen.unit_shapes import classifier_shape, unit_shape
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.utils.text import typed

_TIMED_BATCHES = (1, 32)


@dataclass(frozen=True)
class NetworkPart:
    """A part of a network: `label` is its position, `layer` its description (None: the classifier).

    `counts` are of one image; `table_ms` is None if the table does not list it, or there is no table.
    """

    label: str
    layer: Conv | Block | Unit | str | None
    in_channels: int
    out_channels: int
    input_size: int
    counts: Counts
    table_ms: float | None


@dataclass(frozen=True)
class ParsedNetwork:
    """An architecture, its source, its costs, and notes for the user."""

    architecture: NetworkArchitecture
    source: ArchitectureSource
    parts: tuple[NetworkPart, ...]
    counts: Counts
    table: AnyTable | None
    notes: tuple[str, ...]

    @property
    def timed_batches(self) -> list[int]:
        """Batch sizes to time: 1, 32 and, if it is known, that of the table."""
        of_table = None if self.table is None else self.table.batch_size
        return sorted({*_TIMED_BATCHES, *(() if of_table is None else (of_table,))})

    @property
    def target_ms(self) -> float | None:
        """The search's target in milliseconds; None if it is unknown, or of another cost."""
        return self.source.target_ms

    @property
    def table_ms(self) -> float | None:
        """The network's latency in the table, in milliseconds per batch; None without a table of latencies."""
        if self.table is None or not self.table.cost.is_time:
            return None
        return self.table.architecture_ms(self.architecture)

    @property
    def cost(self) -> Cost:
        """The cost that the search's target refers to."""
        return COSTS[self.source.cost]

    @property
    def reached(self) -> float | None:
        """This network's value of the target's cost: table latency or a count; None for a latency without a table."""
        return self.table_ms if self.cost.is_time else float(getattr(self.counts, self.cost.name))

    @property
    def error_percent(self) -> float | None:
        """Deviation from the target in percent of the target; None if either is unknown."""
        if self.reached is None or self.source.target is None:
            return None
        return 100 * (self.reached / self.source.target - 1)


def parse_model(
    path: str | os.PathLike[str] | None = None,
    *,
    arch: str | None = None,
    lookup_path: str | os.PathLike[str] | None = None,
    space: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> ParsedNetwork:
    """Read a run directory, a checkpoint of a search (ours or the authors') or an architecture file, and its costs.

    `arch` names a network of the zoo, or is the text of an architecture, in place of a path.

    The table is the one at `lookup_path`, else the search's own, else the one bundled for the space, if it fits.
    `space` (a name or a YAML file) is what the network must be of; `image_size` and `num_classes` replace what was
    found. Raises InputError naming the file and what is wrong with it.
    """
    named_space = None if space is None else load_space(space, image_size=image_size)
    if (path is None) == (arch is None):
        raise InputError("parse_model reads one network: give a path or arch")
    source = arch_source(arch) if arch is not None else read_source(Path(path or ""), named_space)
    found = source.architecture
    architecture = found.adapted(
        image_size=image_size or found.image_size, num_classes=num_classes or found.num_classes
    )
    if named_space is not None:
        _check_of_space(architecture, named_space, str(path or arch))
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


def _check_of_space(architecture: NetworkArchitecture, space: SearchSpace, source: str) -> None:
    """Raise InputError that names what is not in the space."""
    try:
        if not isinstance(architecture, Architecture):
            raise InputError(f"it is of the family {architecture.family}")
        check_of_space(architecture, space)
    except InputError as error:
        raise InputError(f"{source} is not a network of space {space.name}: {error}") from error


# ---- the table ------------------------------------------------------------------------------------------------------


def _choose_table(
    architecture: NetworkArchitecture,
    source: ArchitectureSource,
    lookup_path: str | os.PathLike[str] | None,
    space: str | None,
) -> tuple[AnyTable | None, tuple[str, ...]]:
    """The latency table, and notes about it. Raises InputError if the one asked for does not fit."""
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
    if not isinstance(architecture, Architecture):
        return None, notes
    for name in [space] if space else space_names():
        default = default_table_path(name)
        if default is not None:
            try:
                table = _fitting_table(default, architecture)
                elsewhere = other_machine(table)
                where = "" if elsewhere is None else f"; {elsewhere}"
                return table, (*notes, f"latency from the bundled table of space {name}{where}")
            except InputError:
                continue
    return None, (*notes, "no bundled latency table fits this network; give one with --lookup_path")


def _fitting_table(path: Path, architecture: NetworkArchitecture) -> AnyTable:
    table = load_table(path)
    table.architecture_ms(architecture)
    return table


# ---- the parts ------------------------------------------------------------------------------------------------------


def _parts(architecture: NetworkArchitecture, table: AnyTable | None) -> Iterator[NetworkPart]:
    """Every part of the network in order; `table` is one that prices it."""
    if isinstance(architecture, Architecture):
        yield from _mbconv_parts(architecture, table if isinstance(table, LatencyTable) else None)
        return
    if isinstance(architecture, StructureArchitecture):
        yield from _structure_parts(architecture, table if isinstance(table, StructureTable) else None)
        return
    *parts, head = cost_parts(architecture)
    for part in parts:
        yield NetworkPart(part.name, part.key, part.in_channels, part.out_channels, part.input_size, part.counts, None)
    yield _head(head, None)


def _structure_parts(architecture: StructureArchitecture, table: StructureTable | None) -> Iterator[NetworkPart]:
    notation = architecture.structure.notation
    units = architecture.structure.units(architecture.image_size, use_se=architecture.use_se)
    *parts, head = cost_parts(architecture)
    for part, unit in zip(parts, units, strict=True):
        table_ms = None if table is None else table.part_ms(unit_shape(unit, notation))
        label = f"{unit.block + 1}.{unit.position + 1}"
        yield NetworkPart(label, unit, part.in_channels, part.out_channels, part.input_size, part.counts, table_ms)
    classifier = classifier_shape(notation, head.in_channels, head.out_channels, head.input_size)
    yield _head(head, None if table is None else table.part_ms(classifier))


def _head(part: CostPart, table_ms: float | None) -> NetworkPart:
    return NetworkPart("head", None, part.in_channels, part.out_channels, part.input_size, part.counts, table_ms)


def _mbconv_parts(architecture: Architecture, table: LatencyTable | None) -> Iterator[NetworkPart]:
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
    """Write the original program's format to `save_path` and ours next to it; returns the paths.

    The original format is the TF-NAS authors' model.config, or a structure's text; a family without one has ours alone.
    Without `save_path` the files of a finished run are rewritten; for other sources they are ./model.config or
    ./structure.txt, which replace nothing, and of an unfinished search nothing is written. Ours is called
    architecture.json next to files of these names, and otherwise like the other one, ending in .json.

    Raises InputError for an unusable path, and if another network would be replaced without `save_path`; RunFailed when
    a file cannot be written.
    """
    if save_path is None and parsed.source.kind == UNFINISHED:
        return ()
    form = original_form(parsed.architecture)
    name = RUN_FILE if form is None else form[0]
    original = Path(save_path) if save_path else (parsed.source.finished_run or Path()) / name
    if original.is_dir():
        original = original / name
    ours = original.with_name(RUN_FILE) if original.name == name else original.with_suffix(".json")
    if ours == original and form is not None:
        raise InputError(f"--save_path {original}: .json is the ending of our own form; give {name}, for instance")
    if not original.parent.is_dir():
        raise InputError(f"--save_path {original}: there is no folder {original.parent}; make it first")
    if save_path is None and parsed.source.finished_run is None:
        _check_nothing_replaced(parsed, ours, original)
    return write_forms(parsed.architecture, ours, original)


def _check_nothing_replaced(parsed: ParsedNetwork, ours: Path, original: Path) -> None:
    """Raise InputError if one of the files exists with different contents."""
    form = original_form(parsed.architecture)
    forms = [(ours, json.dumps(to_document(parsed.architecture)))] + ([] if form is None else [(original, form[1])])
    for path, text in forms:
        if path.exists() and not _has_contents(path, text):
            raise InputError(
                f"{path.absolute()} already exists with different contents: --save_path {typed(original)} replaces "
                "it, and another --save_path writes elsewhere"
            )


def _has_contents(path: Path, text: str) -> bool:
    """Whether a file has the contents of a text, JSON in any layout."""
    try:
        if text.startswith("{"):
            return bool(load_json_file(path) == json.loads(text))
        return path.read_text(encoding="utf-8").split() == text.split()
    except (OSError, ValueError):  # InputError among them
        return False
