"""LatencyTable: what an architecture takes, in milliseconds per batch, by adding up measured blocks.

    table = LatencyTable.load("latency_pkl/digits_cpu.json")
    table.architecture_ms(architecture)

Latency is not assumed to grow with width, nor with anything else.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tfnas.architecture import Architecture, Block
from tfnas.errors import InputError
from tfnas.files import write_whole
from tfnas.latency.authors import read_authors_table
from tfnas.latency.contents import TableContents
from tfnas.latency.keys import base_keys, latency_key, shallowest_architecture, without_classes
from tfnas.latency.table_file import read_json, table_to_json, to_text
from tfnas.space import BlockPlace, SearchSpace

_LARGEST_FILE = 64 * 2**20
_REMEDY = "give another table with --lookup_path, or measure one (python -m tfnas latency build --help)"


class LatencyTable:
    """Milliseconds per batch of blocks by width, plus `base_ms` for stems, feature mix and classifier.

    A lookup outside what was measured raises InputError naming the key and the nearest ones, or the widths measured.
    `contents` is what the file holds; `source` names the table in messages.
    """

    def __init__(self, contents: TableContents, source: str = "the latency table") -> None:
        self.contents = contents
        self.source = source
        self.base_ms: float = sum(part.ms for part in contents.base.values())
        self._slices: dict[tuple[str, int, int], NDArray[np.float64]] = {}

    # ---- files ------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Read our JSON form or the authors' pickle, whichever the file's contents are. Nothing in a file is run.

        Raises InputError naming the file and what is wrong in it; warns (LatencyTableWarning) of negative entries in
        the authors' files.
        """
        file = Path(path)
        try:
            if file.stat().st_size > _LARGEST_FILE:
                raise InputError(f"latency table {file} is larger than {_LARGEST_FILE >> 20} MiB: this is another file")
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"latency table {file} cannot be read: {error.strerror}") from error
        try:
            if data.startswith(b"\x80"):
                contents = read_authors_table(data)
            elif data.lstrip().startswith(b"{"):
                contents = read_json(data)
            else:
                raise InputError("neither our JSON form nor a pickle of the TF-NAS authors")
        except InputError as error:
            raise InputError(f"latency table {file}: {error}") from error
        return cls(contents, source=f"latency table {file}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write our JSON form, whole or not at all.

        Raises InputError for the authors' tables, which do not say what ours must, and RunFailed on a full disk.
        """
        write_whole(Path(path), to_text(table_to_json(self.contents)))

    # ---- identity ---------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int | None:
        """Images per batch of the measurement; None where the file does not say."""
        return None if self.contents.measurement is None else self.contents.measurement.batch_size

    @property
    def description(self) -> str:
        """One line: device, runtime, batch, threads, dtype, date."""
        if self.contents.measurement is None:
            return "the authors' table (no device recorded)"
        return self.contents.measurement.description

    @property
    def fingerprint(self) -> str:
        """Short digest of the contents."""
        document = dataclasses.asdict(self.contents)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    # ---- lookups ----------------------------------------------------------------------------------------------

    def block_ms(self, block: Block, input_size: int) -> float:
        """Milliseconds of a block at its width, receiving `input_size` x `input_size` pixels."""
        width = block.mid_channels
        return float(self._between(latency_key(block, input_size), width, width)[0])

    def widths_ms(self, block: Block, input_size: int) -> NDArray[np.float64]:
        """Milliseconds at every width of `block.mid_range`, both ends included: float64, read-only, cached."""
        return self._between(latency_key(block, input_size), *block.mid_range)

    def architecture_ms(self, architecture: Architecture) -> float:
        """Milliseconds of a whole network: the base and every block at its width."""
        self._check_base(architecture)
        return self.base_ms + sum(self.block_ms(place.block, place.input_size) for place in architecture.blocks)

    def range_ms(self, space: SearchSpace) -> tuple[float, float]:
        """Lowest and highest milliseconds over all operations, widths and depths of a space, exactly."""
        lowest: list[list[float]] = [[] for _ in space.stages]
        highest: list[list[float]] = [[] for _ in space.stages]
        for place in space.blocks:
            curves = [self.widths_ms(block, place.input_size) for block in _choices(space, place)]
            lowest[place.stage].append(min(float(curve.min()) for curve in curves))
            highest[place.stage].append(max(float(curve.max()) for curve in curves))
        low: list[float] = []
        high: list[float] = []
        for stage, depths in enumerate(space.depth_choices):
            low += min((lowest[stage][:depth] for depth in depths), key=sum)
            high += max((highest[stage][:depth] for depth in depths), key=sum)
        return self.base_ms + sum(low), self.base_ms + sum(high)  # in the order in which architecture_ms adds

    def bounds_text(self, space: SearchSpace) -> str:
        """For messages: the range of the space in this table, and what bounds it."""
        low, high = self.range_ms(space)
        blocks = sum(min(depths) for depths in space.depth_choices)
        return (
            f"{low:.4g} to {high:.4g} ms; stem and head alone take {self.base_ms:.4g} ms, the {blocks} blocks that a "
            f"network must keep {low - self.base_ms:.4g} ms at least, and all {len(space.blocks)} blocks "
            f"{high - self.base_ms:.4g} ms at most"
        )

    # ---- fitness for a space ----------------------------------------------------------------------------------

    def check(self, space: SearchSpace) -> None:
        """Raise InputError unless the table prices every operation and width of the space, and the same stems."""
        measurement = self.contents.measurement
        if measurement is not None and measurement.image_size != space.image_size:
            raise InputError(
                f"{self.source} was measured for images of {measurement.image_size} px, the space {space.name!r} has "
                f"{space.image_size} px: {_REMEDY}"
            )
        self._check_base(shallowest_architecture(space, num_classes=1))
        for place in space.blocks:
            for block in _choices(space, place):
                try:
                    self.widths_ms(block, place.input_size)
                except InputError as error:
                    raise InputError(
                        f"{place.name} of the space {space.name!r} is not in its table: {error}"
                    ) from error

    def _check_base(self, architecture: Architecture) -> None:
        """Stems, feature mix and classifier (up to its number of classes) must be those measured, where it is known."""
        if self.contents.measurement is None:
            return
        for name, key in base_keys(architecture).items():
            measured = self.contents.base[name].key
            if without_classes(measured) != without_classes(key):
                raise InputError(
                    f"{self.source} is for other networks: its {name} is {measured}, asked for is {key}: {_REMEDY}"
                )

    # ---- inside -----------------------------------------------------------------------------------------------

    def _between(self, key: str, low: int, high: int) -> NDArray[np.float64]:
        found = self._slices.get((key, low, high))
        if found is None:
            found = self._slices[key, low, high] = self._checked_slice(key, low, high)
        return found

    def _checked_slice(self, key: str, low: int, high: int) -> NDArray[np.float64]:
        curve = self.contents.curves.get(key) or self._refuse_key(key)
        first, last = curve.widths[0], curve.widths[-1]
        if low < first or high > last:
            asked = f"width {low}" if low == high else f"widths {low} to {high}"
            raise InputError(f"{self.source} has {key} at widths {first} to {last}, not at {asked}")
        values = curve.dense_ms[low - first : high - first + 1]
        worst = int(values.argmin())
        if values[worst] <= 0:
            raise InputError(
                f"{self.source} holds {values[worst]:.4g} ms for {key} at width {low + worst}, a fault of the file: "
                f"{_REMEDY}"
            )
        return values

    def _refuse_key(self, key: str) -> NoReturn:
        nearest = difflib.get_close_matches(key, self.contents.curves, n=3, cutoff=0.0)
        raise InputError(f"{self.source} has no {key}; the nearest it has: {', '.join(nearest)}")


def _choices(space: SearchSpace, place: BlockPlace) -> list[Block]:
    """The block at a place under every operation, with the range of widths each may take."""
    return [space.block(place, operation, space.initial_width(place, operation)) for operation in space.operations]
