"""Figures of whole structures, memoised per super-block: in an evolutionary search few blocks of a child are new.

counter = StructureFigures()
counter.figures(architecture)      # {"params": ..., "macs": ..., "layers": ..., "memory": ..., "effectiveness": ...}
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from tfnas.core.units import FLOAT32_BYTES, PLAIN, classifier_counts, classifier_peak_activations
from tfnas.spaces.zen.block_figures import block_figures
from tfnas.spaces.zen.program_counts import program_counts, program_feature_bytes, program_layers
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.super_block import Notation, SuperBlock
from tfnas.spaces.zen.zen_family import StructureArchitecture

_MOST_BLOCKS = 20_000
"""Blocks that are remembered: some 12 MB. When there are more all are forgotten, which costs time only."""

_MOST_STRUCTURES = 1024
"""Structures that are remembered, for scores are taken after budgets."""

_LAST_BITS = 8
"""Of what the last block writes, for `max_feature`."""

_Entry = tuple[float, float, int, int, float, int, int, int]
"""Of a block: parameters, MACs, layers, convolutions, log width, peak activations, the number of the table that the
next block is in, and units. Plain numbers, which the garbage collector does not visit again and again."""
_Setting = tuple[Notation, bool, int, int, float]
"""Of a table: notation, squeeze-and-excite, frames, the size that its blocks receive, and the size that the program
counts them at."""


class _Table(dict[SuperBlock, _Entry]):
    """Entries of blocks that are counted in one setting."""

    def __init__(self, setting: _Setting) -> None:
        super().__init__()
        self.setting = setting


@dataclass(slots=True)
class _Walk:
    """What is known of a structure: the table of its first block, the entries of all, and by classes the figures."""

    first: _Table
    entries: list[_Entry]
    figures: dict[int, dict[str, float]] = field(default_factory=dict)


class StageWidth(NamedTuple):
    """The end of a stage: channels and pixels a side of its last feature map, and the log width up to there."""

    channels: int
    resolution: int
    log_width: float


class StructureFigures:
    """Counts structures: truly, or with `reference` as their programs do in searches.

    Those count without squeeze-and-excite (ZenNAS, where it is asked for) or without classifier (TinyNAS).
    """

    def __init__(self, *, reference: bool = False) -> None:
        self._reference = reference
        self._numbers: dict[_Setting, int] = {}
        self._tables: list[_Table] = []
        self._remembered = 0
        self._walks: dict[Structure, _Walk] = {}

    def figures(self, architecture: StructureArchitecture) -> dict[str, float]:
        """`params`, `macs`, `layers` (what the program's limit on depth counts), `memory` (bytes) and `effectiveness`
        of one image or video."""
        walk, classes = self._walk(architecture), architecture.num_classes
        figures = walk.figures.get(classes)
        if figures is None:
            figures = walk.figures[classes] = self._added(architecture, walk.entries)
        return dict(figures)

    def _added(self, architecture: StructureArchitecture, entries: list[_Entry]) -> dict[str, float]:
        columns = zip(*entries, strict=True)
        params, macs, layers, convs, log_widths = (list(accumulate(next(columns))) for _ in range(5))
        peak, following = max(next(columns)), next(columns)
        ends = [number - 1 for number, block in enumerate(architecture.structure.blocks) if block.stride > 1 and number]
        effectiveness = [convs[end] * math.exp(-log_widths[end] / convs[end]) for end in (*ends, -1)]
        head_params, head_macs, head_peak = self._head(architecture, self._tables[following[-1]].setting[3])
        return {
            "params": params[-1] + head_params,
            "macs": macs[-1] + head_macs,
            "layers": layers[-1],
            "memory": FLOAT32_BYTES * max(peak, head_peak),
            "effectiveness": max(effectiveness),
        }

    def stages(self, architecture: StructureArchitecture) -> tuple[list[StageWidth], list[int]]:
        """Its stages, and the number of units of every residual super-block."""
        tables, blocks = self._tables, architecture.structure.blocks
        walk = self._walk(architecture)
        table, channels, log_width = walk.first, 0, 0.0
        stages: list[StageWidth] = []
        depths: list[int] = []
        for block, found in zip(blocks, walk.entries, strict=True):
            if block.stride > 1 and channels:
                stages.append(StageWidth(channels, table.setting[3], log_width))
            if block.block_type != PLAIN:
                depths.append(found[7])
            log_width += found[4]
            channels, table = block.out_channels, tables[found[6]]
        stages.append(StageWidth(channels, table.setting[3], log_width))
        return stages, depths

    def peak_feature(self, architecture: StructureArchitecture) -> float:
        """TinyNAS's `max_feature`, in bytes. Raises InputError for others than quantised depthwise structures."""
        peak, size, blocks = 0.0, architecture.image_size, architecture.structure.blocks
        for block, behind in zip(blocks, (*blocks[1:], None), strict=True):
            bits = behind.activation_bits[0] if behind is not None and behind.activation_bits else _LAST_BITS
            peak = max(peak, program_feature_bytes(block, size, bits))
            size //= block.stride
        return peak

    def _walk(self, architecture: StructureArchitecture) -> _Walk:
        """The entries of a structure's blocks."""
        structure, first = architecture.structure, self._first_table(architecture)
        known = self._walks.get(structure)
        if known is not None and known.first is first:
            return known
        tables, table, entries = self._tables, first, []
        for block in structure.blocks:
            found = table.get(block)
            if found is None:
                found = self._counted(block, table)
            entries.append(found)
            table = tables[found[6]]
        if len(self._walks) >= _MOST_STRUCTURES:
            self._walks.clear()
        self._walks[structure] = walk = _Walk(first, entries)
        return walk

    def _first_table(self, architecture: StructureArchitecture) -> _Table:
        notation, size = architecture.structure.notation, architecture.image_size
        counted_size = float(size) if self._reference else 0.0
        return self._tables[self._number((notation, architecture.use_se, architecture.frames, size, counted_size))]

    def _number(self, setting: _Setting) -> int:
        """The number of the table of a setting; where nothing is counted as programs do, sizes are true ones alone."""
        number = self._numbers.get(setting)
        if number is None:
            number = self._numbers[setting] = len(self._tables)
            self._tables.append(_Table(setting))
        return number

    def _counted(self, block: SuperBlock, table: _Table) -> _Entry:
        """Count a block and remember it."""
        notation, use_se, frames, size, counted_size = table.setting
        found = block_figures(
            block, notation, size, frames=frames, use_se=use_se, groups_share_fan_in=not self._reference
        )
        params: float = found.params
        macs: float = found.macs
        if self._reference:
            params, macs, counted_size = program_counts(block, notation, counted_size, frames=frames)
        if self._remembered >= _MOST_BLOCKS:
            for full in self._tables:
                full.clear()
            self._remembered = 0
        self._remembered += 1
        following = self._number((notation, use_se, frames, found.size_out, counted_size))
        layers = program_layers(block, notation)
        entry = params, macs, layers, found.convs, found.log_width, found.peak_activations, following, found.units
        table[block] = entry
        return entry

    def _head(self, architecture: StructureArchitecture, size: int) -> tuple[float, float, int]:
        """Parameters, MACs and peak activations of the classifier."""
        channels, classes = architecture.structure.blocks[-1].out_channels, architecture.num_classes
        positions = architecture.frames * size**2
        peak = classifier_peak_activations(channels, classes, positions)
        if not self._reference:
            counts = classifier_counts(channels, classes, positions)
            return counts.params, counts.macs, peak
        if architecture.structure.notation == "tinynas":
            return 0, 0, peak
        return channels * classes + 1, channels * classes, peak


def structure_figures(reference: bool = False) -> StructureFigures:
    """What all of this process that count structures share, so that a block is counted once."""
    return _shared(reference)


@cache  # which tells a default from the same value that is given
def _shared(reference: bool) -> StructureFigures:
    return StructureFigures(reference=reference)
