"""Figures of whole structures, memoised per super-block: in an evolutionary search few blocks of a child are new.

counter = StructureFigures()
counter.figures(architecture)      # {"params": ..., "macs": ..., "layers": ..., "memory": ..., "effectiveness": ...}
"""

from __future__ import annotations

import math
from functools import lru_cache

from tfnas.core.units import classifier_counts, classifier_peak_activations
from tfnas.spaces.zen.block_figures import block_figures
from tfnas.spaces.zen.program_counts import program_counts, program_feature_bytes, program_layers
from tfnas.spaces.zen.structure import check_setting
from tfnas.spaces.zen.super_block import Notation, SuperBlock
from tfnas.spaces.zen.zen_family import StructureArchitecture

_MOST_BLOCKS = 50_000
"""Blocks that are remembered: some 30 MB. When there are more all are forgotten, which costs time only."""


_Entry = tuple[float, float, int, int, float, int, "_SizeTable"]
"""Of a block: parameters, MACs, layers, convolutions, log width, peak activations, and the table of the next block."""
_SizeTables = dict[tuple[int, float], "_SizeTable"]


_LAST_BITS = 8
"""Of what the last block writes, for `max_feature`."""


class _SizeTable(dict[SuperBlock, _Entry]):
    """Entries of blocks that receive maps of one size, among the `tables` of other sizes."""

    def __init__(self, size: int, counted_size: float, tables: _SizeTables) -> None:
        super().__init__()
        self.size, self.counted_size, self.tables = size, counted_size, tables


class StructureFigures:
    """Counts structures: truly, or with `reference` as their programs do in searches.

    Those count without squeeze-and-excite (ZenNAS, where it is asked for) or without classifier (TinyNAS).
    `bytes_per_activation` is 4 for float32.
    """

    def __init__(self, *, reference: bool = False, bytes_per_activation: int = 4) -> None:
        self._reference, self._bytes = reference, bytes_per_activation
        self._tables: dict[tuple[Notation, bool, int], _SizeTables] = {}
        self._remembered = 0
        self._feature_bytes = lru_cache(_MOST_BLOCKS)(program_feature_bytes)

    def figures(self, architecture: StructureArchitecture) -> dict[str, float]:
        """`params`, `macs`, `layers` (what the program's limit on depth counts), `memory` (bytes) and `effectiveness`
        of one image or video."""
        blocks = architecture.structure.blocks
        table = self._first_table(architecture)
        params: float = 0
        macs: float = 0
        layers = convs = peak = 0
        log_width = effectiveness = 0.0
        for block in blocks:
            found = table.get(block)
            if found is None:
                found = self._counted(block, table, architecture)
            if block.stride > 1 and convs:
                effectiveness = max(effectiveness, convs * math.exp(-log_width / convs))
            params += found[0]
            macs += found[1]
            layers += found[2]
            convs += found[3]
            log_width += found[4]
            if found[5] > peak:
                peak = found[5]
            table = found[6]
        head_params, head_macs, head_peak = self._head(architecture, table.size)
        return {
            "params": params + head_params,
            "macs": macs + head_macs,
            "layers": layers,
            "memory": max(peak, head_peak) * self._bytes,
            "effectiveness": max(effectiveness, convs * math.exp(-log_width / convs)),
        }

    def peak_feature(self, architecture: StructureArchitecture) -> float:
        """TinyNAS's `max_feature`, in bytes. Raises InputError for others than quantised depthwise structures."""
        peak, size, blocks = 0.0, architecture.image_size, architecture.structure.blocks
        for block, behind in zip(blocks, (*blocks[1:], None), strict=True):
            bits = behind.activation_bits[0] if behind is not None and behind.activation_bits else _LAST_BITS
            peak = max(peak, self._feature_bytes(block, size, bits))
            size //= block.stride
        return peak

    def _first_table(self, architecture: StructureArchitecture) -> _SizeTable:
        structure, frames = architecture.structure, 1
        key = structure.notation, architecture.use_se, frames
        tables = self._tables.get(key)
        if tables is None:
            check_setting(structure, architecture.image_size, frames, architecture.use_se)
            tables = self._tables[key] = {}
        return self._table(tables, architecture.image_size, float(architecture.image_size))

    def _table(self, tables: _SizeTables, size: int, counted_size: float) -> _SizeTable:
        """The table of a size; where nothing is counted as programs do there is one for each true size."""
        key = size, counted_size if self._reference else 0.0
        table = tables.get(key)
        if table is None:
            table = tables[key] = _SizeTable(size, counted_size, tables)
        return table

    def _counted(self, block: SuperBlock, table: _SizeTable, architecture: StructureArchitecture) -> _Entry:
        """Count a block and remember it."""
        notation = architecture.structure.notation
        found = block_figures(
            block,
            notation,
            table.size,
            frames=1,
            use_se=architecture.use_se,
            groups_share_fan_in=not self._reference,
        )
        params: float = found.params
        macs: float = found.macs
        counted_out = float(found.size_out)
        if self._reference:
            params, macs, counted_out = program_counts(block, notation, table.counted_size, frames=1)
        if self._remembered >= _MOST_BLOCKS:
            self._tables.clear()
            self._remembered = 0
        self._remembered += 1
        following = self._table(table.tables, found.size_out, counted_out)
        layers = program_layers(block, notation)
        entry = params, macs, layers, found.convs, found.log_width, found.peak_activations, following
        table[block] = entry
        return entry

    def _head(self, architecture: StructureArchitecture, size: int) -> tuple[float, float, int]:
        """Parameters, MACs and peak activations of the classifier."""
        channels, classes = architecture.structure.blocks[-1].out_channels, architecture.num_classes
        positions = size**2
        peak = classifier_peak_activations(channels, classes, positions)
        if not self._reference:
            counts = classifier_counts(channels, classes, positions)
            return counts.params, counts.macs, peak
        if architecture.structure.notation == "tinynas":
            return 0, 0, peak
        return channels * classes + 1, channels * classes, peak
