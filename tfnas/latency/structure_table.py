"""StructureTable: latencies of structures of a space, by adding up their units, which a model predicts from a few.

table = StructureTable.load("zen_cpu.json")
table.architecture_ms(architecture)

The file holds measurements only; the model (`unit_latency_model.py`) is fitted when it is first needed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tfnas.core.cost import MILLISECONDS, Cost
from tfnas.core.errors import InputError
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.structure_table_json import (
    StructureTableContents,
    read_structure_table,
    structure_table_to_json,
)
from tfnas.latency.table_contents import Correction
from tfnas.latency.table_json import STRUCTURE_FORMAT, is_json, json_table, table_bytes, to_text
from tfnas.latency.unit_features import unit_macs
from tfnas.latency.unit_latency_model import UnitLatencyModel
from tfnas.spaces.zen.structure_spaces import structure_space, structure_space_names
from tfnas.spaces.zen.super_block import KNOWN_BLOCKS, SuperBlock
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, UnitShape, block_shapes, classifier_shape
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily
from tfnas.utils.files import write_whole

_MOST_UNITS = 1 << 18
"""Units that are remembered: some 100 MB."""
_BEYOND = 2.0
"""How far from what was measured predictions are made, as a factor of channels and of multiply-accumulates."""


class NotInTable(InputError):
    """A network has a unit that a table has nothing like, so that nothing can be said of its latency."""


class _Range(NamedTuple):
    """The least and most channels in, inside and out of the units of a kind, and their most multiply-accumulates."""

    least: tuple[int, int, int]
    most: tuple[int, int, int]
    macs: float


class _BlockPrices(dict[SuperBlock, tuple[float, int, "_BlockPrices"]]):
    """Of blocks that receive maps of one size: milliseconds, units, and the table of the next block."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class StructureTable:
    """Milliseconds per batch of structures: what their units and classifier take, corrected if it has a correction.

    A network with a unit of a kind that was not measured, or with more or fewer channels than were, is refused.
    `contents` is what the file holds; `source` names the table in messages, `path` is the file, where it is in one.
    """

    def __init__(
        self,
        contents: StructureTableContents,
        source: str = "the latency table",
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.contents = contents
        self.source = source
        self.path = None if path is None else Path(path)
        self._units: dict[UnitShape, float] = {}
        self._first: dict[tuple[object, ...], _BlockPrices] = {}
        self._tables: dict[tuple[int, bool], _BlockPrices] = {}
        self._remembered = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StructureTable:
        """Read our JSON form. Raises InputError naming the file and what is wrong in it."""
        return cls.of_bytes(table_bytes(Path(path)), Path(path))

    @classmethod
    def of_bytes(cls, data: bytes, file: Path) -> StructureTable:
        """The table in the contents of a file. Raises as `load` does."""
        try:
            if not is_json(data):
                raise InputError("it is not our JSON form: a table of structures (ZenNet, TinyNAS) is needed here")
            contents = read_structure_table(json_table(data))
        except InputError as error:
            raise InputError(f"latency table {file}: {error}") from error
        return cls(contents, f"latency table {file}", file)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write our JSON form, whole or not at all. Raises RunFailed on a full disk."""
        write_whole(Path(path), to_text(structure_table_to_json(self.contents)))

    def with_correction(self, correction: Correction | None, path: str | os.PathLike[str]) -> StructureTable:
        """The same table with another correction or none, which stands for the file at a path."""
        contents = dataclasses.replace(self.contents, correction=correction)
        return StructureTable(contents, f"latency table {path}", path)

    # ---- identity ---------------------------------------------------------------------------------------------

    @property
    def cost(self) -> Cost:
        """Milliseconds."""
        return MILLISECONDS

    @property
    def unit(self) -> str:
        """The unit of all figures: `ms`."""
        return self.cost.unit

    @property
    def batch_size(self) -> int:
        """Images per batch of the measurement."""
        return self.contents.measurement.batch_size

    def quantity(self, value: float, digits: int = 4) -> str:
        """A figure of this table for people, with its unit: `15.02 ms`."""
        return self.cost.quantity(value, digits)

    @property
    def description(self) -> str:
        """One line: device, runtime, batch, threads, dtype, date."""
        return self.contents.measurement.description

    @property
    def fingerprint(self) -> str:
        """Short digest of the contents."""
        document = structure_table_to_json(self.contents)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    # ---- prices -----------------------------------------------------------------------------------------------

    def architecture_ms(self, architecture: Any) -> float:
        """Milliseconds of a whole network. Raises InputError for one of another family or image size, and NotInTable
        naming the unit that is outside what was measured.
        """
        sum_ms, units = self.sum_ms(architecture)
        correction = self.contents.correction
        if correction is None:
            return sum_ms
        return correction.scale * sum_ms + correction.offset_ms + correction.block_ms * units

    def sum_ms(self, architecture: Any) -> tuple[float, int]:
        """The uncorrected sum over units and classifier, and the number of units. Raises as `architecture_ms` does."""
        if not isinstance(architecture, StructureArchitecture):
            raise InputError(
                f"{self.source} is of structures, the network is of family {getattr(architecture, 'family', None)!r}: "
                "give a table of its own space"
            )
        structure = architecture.structure
        key = architecture.image_size, architecture.use_se, structure.notation, architecture.is_video
        table = self._first.get(key)
        if table is None:
            table = self._first[key] = self._first_table(architecture)
        total_ms, units = 0.0, 0
        for block in structure.blocks:
            found = table.get(block)
            if found is None:
                found = self._price(block, table, architecture.use_se)
            total_ms += found[0]
            units += found[1]
            table = found[2]
        classifier = classifier_shape(structure.notation, structure.out_channels, architecture.num_classes, table.size)
        return total_ms + self.unit_ms(classifier), units

    def unit_ms(self, shape: UnitShape) -> float:
        """Milliseconds of a unit or classifier, uncorrected. Raises NotInTable where it is outside what was
        measured.
        """
        found = self._units.get(shape)
        if found is None:
            self._check_range(shape)
            found = self.model.ms(shape)
            if len(self._units) >= _MOST_UNITS:
                self._units.clear()
            self._units[shape] = found
        return found

    def part_ms(self, shape: UnitShape) -> float:
        """The same with the correction, so that the parts of a network add up to its milliseconds."""
        uncorrected_ms, correction = self.unit_ms(shape), self.contents.correction
        if correction is None:
            return uncorrected_ms
        added_ms = correction.offset_ms if shape.block_type == CLASSIFIER else correction.block_ms
        return correction.scale * uncorrected_ms + added_ms

    @cached_property
    def model(self) -> UnitLatencyModel:
        """What predicts units."""
        return UnitLatencyModel.of_timings(self.contents.points)

    def _first_table(self, architecture: StructureArchitecture) -> _BlockPrices:
        measured = self.contents.measurement
        if architecture.image_size != measured.image_size:
            raise InputError(
                f"{self.source} was measured for images of {measured.image_size} px, the network takes "
                f"{architecture.image_size} px: measure a table with --image_size {architecture.image_size}"
            )
        if architecture.structure.notation != self.contents.notation or architecture.is_video:
            kind = "videos" if architecture.is_video else f"notation {architecture.structure.notation}"
            raise InputError(
                f"{self.source} is of structures of notation {self.contents.notation}, the network is of {kind}"
            )
        return self._table(architecture.image_size, architecture.use_se)

    def _table(self, size: int, use_se: bool) -> _BlockPrices:
        return self._tables.setdefault((size, use_se), _BlockPrices(size))

    def _price(self, block: SuperBlock, table: _BlockPrices, use_se: bool) -> tuple[float, int, _BlockPrices]:
        """Price a block and remember it."""
        shapes = list(block_shapes(block, self.contents.notation, table.size, use_se))
        total_ms = sum(times * self.unit_ms(shape) for shape, times in shapes)
        following = self._table(-(-table.size // block.stride), use_se)
        if self._remembered >= KNOWN_BLOCKS:
            for known in self._tables.values():
                known.clear()
            self._remembered = 0
        self._remembered += 1
        found = table[block] = total_ms, sum(times for _, times in shapes), following
        return found

    # ---- what was measured ------------------------------------------------------------------------------------

    @cached_property
    def _ranges(self) -> dict[UnitShape, _Range]:
        """By what units of all kernels and strides share."""
        ranges: dict[UnitShape, _Range] = {}
        for shape in self.contents.points:
            key = shape.kind._replace(kernel=1, stride=1, projected=False)
            least, most, macs = ranges.get(key, (shape.channels, shape.channels, 0.0))
            ranges[key] = _Range(
                tuple(map(min, least, shape.channels)),  # type: ignore[arg-type]
                tuple(map(max, most, shape.channels)),  # type: ignore[arg-type]
                max(macs, unit_macs(shape)),
            )
        return ranges

    @cached_property
    def _kinds(self) -> tuple[frozenset[UnitShape], frozenset[UnitShape]]:
        """Of what was measured: what units of all strides share, and what those of all sizes and kernels share."""
        kinds = {shape.kind for shape in self.contents.points}
        return (
            frozenset(kind._replace(stride=1, projected=False) for kind in kinds),
            frozenset(kind._replace(size=1, kernel=1) for kind in kinds),
        )

    def _check_range(self, shape: UnitShape) -> None:
        """Raise NotInTable unless its kernel was measured at its size, its stride at some size, and channels near its
        own: half the fewest to twice the most.
        """
        kind, (of_all_strides, of_all_sizes) = shape.kind, self._kinds
        known = kind._replace(stride=1, projected=False) in of_all_strides
        if not known or kind._replace(size=1, kernel=1) not in of_all_sizes:
            raise NotInTable(f"{self.source} has nothing like {shape.text}, whatever its channels")
        measured = self._ranges[kind._replace(kernel=1, stride=1, projected=False)]
        sides = zip(("in", "inside", "out"), measured.least, shape.channels, measured.most, strict=True)
        for name, least, channels, most in sides:
            if not least / _BEYOND <= channels <= most * _BEYOND and (name != "inside" or shape.inside):
                raise NotInTable(
                    f"{self.source} was measured with {least} to {most} channels {name} for units such as "
                    f"{shape.text}: {channels} is too far from that"
                )
        macs = unit_macs(shape)
        if macs > _BEYOND * measured.macs:
            raise NotInTable(
                f"{self.source} was measured with up to {measured.macs / 1e6:.4g} M MACs for units such as "
                f"{shape.text}: {macs / 1e6:.4g} M are too far from that (--max_unit_macs)"
            )


# ---- tables of either kind -------------------------------------------------------------------------------------------

AnyTable = LatencyTable | StructureTable
"""A latency table: of MBConv blocks, or of structures."""


def load_table(path: str | os.PathLike[str]) -> AnyTable:
    """The table in a file, of whatever kind its contents are. Raises InputError naming what is wrong in the file."""
    file = Path(path)
    data = table_bytes(file)
    try:
        of_structures = is_json(data) and json_table(data).get("format") == STRUCTURE_FORMAT
    except InputError as error:
        raise InputError(f"latency table {file}: {error}") from error
    return StructureTable.of_bytes(data, file) if of_structures else LatencyTable.of_bytes(data, file)


def table_family(table: StructureTable, name_or_path: str | None = None) -> ZenFamily:
    """The family of structures that a table is for: its own, if that is built in, or one named.

    Raises InputError for a table of a space that is not built in, and where the space is another one now.
    """
    measurement = table.contents.measurement
    if name_or_path is None and measurement.space not in structure_space_names():
        raise InputError(
            f"{table.source} is for the space {measurement.space!r}, which is not a built-in space: give its YAML file "
            "with --space"
        )
    family = structure_space(
        name_or_path or measurement.space, image_size=measurement.image_size, num_classes=measurement.num_classes
    )
    if family.fingerprint != measurement.space_fingerprint:
        raise InputError(
            f"{table.source} is for a space named {measurement.space!r} with other networks than "
            f"{name_or_path or 'the built-in one'}: give the YAML file of its own with --space"
        )
    return family
