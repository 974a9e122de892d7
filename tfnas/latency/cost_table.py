"""LatencyTable: what an architecture costs, by adding up its blocks: milliseconds per batch as measured, or counts.

    table = LatencyTable.load("latency_pkl/digits_cpu.json")
    table.architecture_ms(architecture)

Latency is not assumed to grow with width, nor with anything else.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.cost import COSTS, Cost
from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block
from tfnas.core.space import SearchSpace
from tfnas.latency.table_contents import Correction, TableContents
from tfnas.latency.table_json import is_json, read_json, table_bytes, table_to_json, to_text
from tfnas.spaces.mbconv.table_keys import (
    authors_key,
    classifier_key,
    latency_key,
    never_expands,
    stem_keys,
)
from tfnas.utils.files import write_whole
from tfnas.utils.text import command_line

if TYPE_CHECKING:
    from tfnas.core.family import NetworkArchitecture


class LatencyTable:
    """A cost table: milliseconds per batch of blocks by width, plus a base for stems, feature mix and classifier.

    Its `cost` says what it holds: milliseconds, or in counted tables (`counted_table.py`) multiply-accumulates or
    parameters; names in `_ms` stand for any of them. All figures include the table's correction, if it has one, so they
    add up. A lookup outside what was measured raises InputError naming the key and the nearest ones, or the widths.
    `contents` is what the file holds; `source` names the table in messages, `path` is the file, where it is in one.
    """

    def __init__(
        self, contents: TableContents, source: str = "the latency table", path: str | os.PathLike[str] | None = None
    ) -> None:
        self.contents = contents
        self.source = source
        self.path = None if path is None else Path(path)
        self._correction = contents.correction
        self._dense: dict[str, NDArray[np.float64]] = {}
        self._slices: dict[tuple[str, range], NDArray[np.float64]] = {}

    # ---- files ------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Read our JSON form or the authors' pickle, whichever the file's contents are. Nothing in a file is run.

        Raises InputError naming the file and what is wrong in it; warns (LatencyTableWarning) of negative entries in
        the authors' files.
        """
        return cls.of_bytes(table_bytes(Path(path)), Path(path))

    @classmethod
    def of_bytes(cls, data: bytes, file: Path) -> LatencyTable:
        """The table in the contents of a file. Raises and warns as `load` does."""
        try:
            if is_json(data):
                contents = read_json(data)
            else:
                from tfnas.latency.authors_table import PICKLE_STARTS, read_authors_table

                if not data.startswith(PICKLE_STARTS):
                    raise InputError("neither a table that `latency build` wrote nor one of the TF-NAS authors")
                contents = read_authors_table(data)
        except InputError as error:
            raise InputError(f"latency table {file}: {error}") from error
        return cls(contents, f"latency table {file}", file)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write our JSON form, whole or not at all.

        Raises InputError for the authors' tables, which do not say what ours must, and RunFailed on a full disk.
        """
        write_whole(Path(path), to_text(table_to_json(self.contents)))

    def with_correction(self, correction: Correction | None, path: str | os.PathLike[str]) -> LatencyTable:
        """The same table with another correction or none, which stands for the file at a path."""
        contents = dataclasses.replace(self.contents, correction=correction)
        return LatencyTable(contents, f"latency table {path}", path)

    # ---- identity ---------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int | None:
        """Images per batch of the measurement; None where the file does not say, and where nothing was measured."""
        measurement = self.contents.measurement
        return None if measurement is None or not self.cost.is_time else measurement.batch_size

    @property
    def cost(self) -> Cost:
        """What the table counts: milliseconds, multiply-accumulates or parameters. Names in `_ms` mean that then."""
        return COSTS[self.contents.cost]

    @property
    def width_multiple(self) -> int:
        """Only widths that are multiples of it are priced."""
        return 1 if self.contents.measurement is None else self.contents.measurement.width_multiple

    @property
    def num_classes(self) -> int | None:
        """Of the networks that figures are for where nothing else is said; None where the file does not say."""
        return None if self.contents.measurement is None else self.contents.measurement.num_classes

    @property
    def unit(self) -> str:
        """The unit of all figures: `ms`, `MACs` or `parameters`."""
        return self.cost.unit

    def quantity(self, value: float, digits: int = 4) -> str:
        """A figure of this table for people, with its unit: `15.02 ms`, `300.1 M MACs`."""
        return self.cost.quantity(value, digits)

    @property
    def description(self) -> str:
        """One line: device, runtime, batch, threads, dtype, date."""
        if self.contents.measurement is None:
            return "the authors' table (no device recorded)"
        if not self.cost.is_time:
            return f"{self.cost.target_words} of one network, counted and not measured"
        return self.contents.measurement.description

    @property
    def fingerprint(self) -> str:
        """Short digest of the contents."""
        document = dataclasses.asdict(self.contents)
        if not self.cost.is_time:
            del document["measurement"]  # the same on every day
        elif document["measurement"] and not document["measurement"]["instruction_sets"]:
            del document["measurement"]["instruction_sets"]  # as before they were recorded
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    # ---- lookups ----------------------------------------------------------------------------------------------

    def block_ms(self, block: Block, input_size: int) -> float:
        """Milliseconds of a block at its width, receiving `input_size` x `input_size` pixels."""
        width, multiple = block.mid_channels, self.width_multiple
        if width % multiple and not never_expands(block):
            raise InputError(f"{self.source} prices widths that are multiples of {multiple} only, not {width}")
        return float(self._at(self._key(block, input_size), range(width, width + 1))[0])

    def widths_ms(self, block: Block, input_size: int) -> NDArray[np.float64]:
        """Milliseconds at each of `block.widths`, the ends of its range included: float64, read-only, cached."""
        multiple = self.width_multiple
        steps = block.widths[0] % multiple or (len(block.widths) > 1 and block.mid_step % multiple)
        if steps and not never_expands(block):
            raise InputError(
                f"{self.source} prices widths that are multiples of {multiple} only: search these, with "
                f"--width_multiple {multiple}"
            )
        return self._at(self._key(block, input_size), block.widths)

    def base_ms(self, num_classes: int | None = None) -> float:
        """Milliseconds of stems, feature mix and classifier, with so many classes or as many as were measured for.

        Raises InputError for more classes than were measured.
        """
        return sum(self.base_parts_ms(num_classes).values())

    def base_parts_ms(self, num_classes: int | None = None) -> dict[str, float]:
        """The parts of `base_ms` by name: what was measured, and what the correction adds to every network."""
        parts = {name: part.ms for name, part in self.contents.base.items()}
        if self.contents.classifier is not None:
            parts["classifier"] = self._classifier_ms(num_classes)
        if self._correction is not None:
            parts = {name: self._correction.scale * ms for name, ms in parts.items()}
            parts["correction"] = self._correction.offset_ms
        return parts

    def architecture_ms(self, architecture: NetworkArchitecture) -> float:
        """Milliseconds of a whole network: the base and every block at its width.

        Raises InputError for one of another family than that of MBConv blocks.
        """
        if not isinstance(architecture, Architecture):
            raise InputError(
                f"{self.source} is of MBConv blocks, the network is of family {architecture.family!r}: give a table of "
                f"its own space ({command_line('latency build', '--help')})"
            )
        self._check_base(architecture)
        blocks_ms = sum(self.block_ms(place.block, place.input_size) for place in architecture.blocks)
        return self.base_ms(architecture.num_classes) + blocks_ms

    def range_ms(self, space: SearchSpace, num_classes: int | None = None) -> tuple[float, float]:
        """Lowest and highest milliseconds over all operations, widths and depths of a space, exactly."""
        base_ms, (lowest, highest) = self.base_ms(num_classes), self.extremes_ms(space)
        return base_ms + sum(itertools.chain(*lowest)), base_ms + sum(itertools.chain(*highest))

    def extremes_ms(self, space: SearchSpace) -> tuple[list[list[float]], list[list[float]]]:
        """Per stage the milliseconds of each block that the lowest choice keeps, and the same of the highest.

        Added up in this order, as `architecture_ms` adds, they give exactly what an architecture measures.
        """
        lowest: list[list[float]] = [[] for _ in space.stages]
        highest: list[list[float]] = [[] for _ in space.stages]
        for place, blocks in zip(space.blocks, space.initial_blocks, strict=True):
            curves = [self.widths_ms(block, place.input_size) for block in blocks]
            lowest[place.stage].append(min(float(curve.min()) for curve in curves))
            highest[place.stage].append(max(float(curve.max()) for curve in curves))
        return (
            [
                min((ms[:depth] for depth in depths), key=sum)
                for ms, depths in zip(lowest, space.depth_choices, strict=True)
            ],
            [
                max((ms[:depth] for depth in depths), key=sum)
                for ms, depths in zip(highest, space.depth_choices, strict=True)
            ],
        )

    # ---- fitness for a space ----------------------------------------------------------------------------------

    def check(self, space: SearchSpace) -> None:
        """Raise InputError unless the table prices every operation and width of the space, and the same stems."""
        measurement = self.contents.measurement
        if measurement is not None and measurement.image_size != space.image_size:
            raise InputError(
                f"{self.source} was measured for images of {measurement.image_size} px, the space {space.name!r} has "
                f"{space.image_size} px: {_remedy()}"
            )
        self._check_base(space.shallowest(num_classes=1))
        for place, blocks in zip(space.blocks, space.initial_blocks, strict=True):
            for block in blocks:
                try:
                    self.widths_ms(block, place.input_size)
                except InputError as error:
                    raise InputError(
                        f"{place.name} of the space {space.name!r} is not in its table: {error}"
                    ) from error

    def _check_base(self, architecture: Architecture) -> None:
        """Stems, feature mix and classifier (up to its number of classes) must be those measured, where it is known."""
        classifier = self.contents.classifier
        if classifier is None:
            return
        measured = {**{name: part.key for name, part in self.contents.base.items()}, "classifier": classifier.key}
        for name, key in {**stem_keys(architecture), "classifier": classifier_key(architecture)}.items():
            if measured[name] != key:
                raise InputError(
                    f"{self.source} is for other networks: its {name} is {measured[name]}, asked for is {key}: "
                    f"{_remedy()}"
                )

    # ---- inside -----------------------------------------------------------------------------------------------

    def _key(self, block: Block, input_size: int) -> str:
        """Where a block is priced: in the authors' tables, one that never expands is under the key of the others."""
        key = latency_key(block, input_size)
        of_authors = self.contents.measurement is None and key not in self.contents.curves
        return authors_key(block, input_size) if of_authors else key

    def _at(self, key: str, widths: range) -> NDArray[np.float64]:
        found = self._slices.get((key, widths))
        if found is None:
            found = self._slices[key, widths] = self._checked_slice(key, widths)
        return found

    def _checked_slice(self, key: str, widths: range) -> NDArray[np.float64]:
        low, high = widths[0], widths[-1]
        curve = self.contents.curves.get(key) or self._refuse_key(key)
        first, last = curve.widths[0], curve.widths[-1]
        if low < first or high > last:
            asked = f"width {low}" if low == high else f"widths {low} to {high}"
            raise InputError(f"{self.source} has {key} at widths {first} to {last}, not at {asked}")
        if key not in self._dense:
            self._dense[key] = self._corrected(self._whole(curve.dense_ms(self.contents.classes)))
        values = self._dense[key][low - first : high - first + 1 : widths.step]
        worst = int(values.argmin())
        if not 0 < values[worst] <= values.max() < np.inf:
            raise InputError(
                f"{self.source} gives {self.quantity(values[worst])} for {key} at width {widths[worst]}: the file is "
                f"corrupt: {_remedy()}"
            )
        return values

    def _whole(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts, which interpolation misses by its last digits, as whole numbers; milliseconds as they are."""
        return values if self.cost.is_time else np.rint(values)

    def _corrected(self, block_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._correction is None:
            return block_ms
        values = self._correction.scale * block_ms + self._correction.block_ms
        values.flags.writeable = False
        return values

    def _classifier_ms(self, num_classes: int | None) -> float:
        measurement, classifier = self.contents.measurement, self.contents.classifier
        assert measurement is not None and classifier is not None
        counts = classifier.curve.widths
        wanted = measurement.num_classes if num_classes is None else num_classes
        if not counts[0] <= wanted <= counts[-1]:
            build = command_line("latency build", "--num_classes", str(wanted), "--space", "NAME", "--out", "FILE")
            raise InputError(
                f"{self.source} was measured for {counts[0]} to {counts[-1]} classes, not for {wanted}: measure one "
                f"with {build}"
            )
        if classifier.key not in self._dense:
            self._dense[classifier.key] = self._whole(classifier.curve.dense_ms())
        return float(self._dense[classifier.key][wanted - counts[0]])

    def _refuse_key(self, key: str) -> NoReturn:
        nearest = difflib.get_close_matches(key, self.contents.curves, n=3, cutoff=0.0)
        raise InputError(f"{self.source} has no {key}; the nearest it has: {', '.join(nearest)}")


def _remedy() -> str:
    """What to do where a table does not fit."""
    return f"give another table with --lookup_path, or measure one ({command_line('latency build', '--help')})"
