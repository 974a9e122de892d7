"""Networks of the training-free programs as frozen data: ZenNAS structure strings and TinyNAS structure files.

    SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,40,2,40,1)...            ZenNAS: notation `zennas`
    {'best_structures': [[{'class': 'ConvKXBNRELU', 'in': 3, ...}, ...]], 'space_arch': 'CnnNet'}    TinyNAS: `tinynas`

`Structure.parse` reads either and `to_text` writes it again. This module imports no torch; `StructureNetwork`
(`tfnas.structures.network`) is the module that a structure describes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.errors import InputError
from tfnas.structures import plainnet, tinynas
from tfnas.structures.block import SuperBlock
from tfnas.structures.expanding import expand
from tfnas.structures.families import FAMILIES, Family, Notation
from tfnas.structures.units import Stage, Unit, stages_of

LARGEST_TEXT = 1_000_000
_BYTE_ORDER_MARK = "\ufeff"
_NAME_OF: dict[Notation, Callable[[SuperBlock], str]] = {"zennas": plainnet.name_of, "tinynas": tinynas.name_of}
_WRITE: dict[Notation, Callable[[tuple[SuperBlock, ...]], str]] = {
    "zennas": plainnet.write_text,
    "tinynas": tinynas.write_text,
}


@dataclass(frozen=True)
class Structure:
    """A network as a list of super-blocks.

    Raises InputError naming the block, counted from 1, where channels do not chain or a block cannot stand.
    """

    blocks: tuple[SuperBlock, ...]
    notation: Notation

    def __post_init__(self) -> None:
        if not self.blocks:
            raise InputError("a structure needs one block or more")
        for number, block in enumerate(self.blocks, 1):
            try:
                self._check(block, None if number == 1 else self.blocks[number - 2])
            except InputError as error:
                raise InputError(f"block {number} of {len(self.blocks)} ({block.family}): {error}") from error

    def _check(self, block: SuperBlock, before: SuperBlock | None) -> None:
        if (self.notation, block.family) not in FAMILIES:
            known = ", ".join(name for notation, name in FAMILIES if notation == self.notation)
            raise InputError(f"there is no such family in notation {self.notation}, which has {known}")
        _NAME_OF[self.notation](block)  # what cannot be written down cannot stand
        if before is not None and before.out_channels != block.in_channels:
            raise InputError(
                f"channels do not chain: it takes {block.in_channels}, the block before it gives {before.out_channels}"
            )
        if (block.temporal_kernel is None) != (self.blocks[0].temporal_kernel is None):
            raise InputError("blocks for images and blocks for videos cannot stand in one network")

    def family(self, block: SuperBlock) -> Family:
        """How the units of a block of this structure are made."""
        return FAMILIES[self.notation, block.family]

    @property
    def in_channels(self) -> int:
        """Channels of the images or videos."""
        return self.blocks[0].in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the last feature map."""
        return self.blocks[-1].out_channels

    @property
    def is_video(self) -> bool:
        """Whether its convolutions span time: it takes (N, C, T, H, W)."""
        return self.blocks[0].temporal_kernel is not None

    @property
    def total_stride(self) -> int:
        """How many pixels of the image a pixel of the last feature map stands for, per side."""
        return math.prod(block.stride for block in self.blocks)

    # ---- text -------------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, text: str, index: int | None = None) -> Structure:
        """Read a ZenNAS string or a TinyNAS literal, all of it: a byte-order mark, white space between blocks and lines
        that begin with # mean nothing.

        A TinyNAS literal may hold several `best_structures`, best first: `index`, from 0 on, says which is meant.
        Raises InputError with the place and the reason, also where there are several and none is named. Nothing in the
        text is run.
        """
        if not isinstance(text, str):
            raise InputError(f"a structure is read from text, not from a {type(text).__name__}")
        if len(text) > LARGEST_TEXT:
            raise InputError(f"a text of {len(text)} characters is no structure")
        lines = text.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        text = "\n".join("" if line.lstrip().startswith("#") else line for line in lines)
        if not text.strip():
            raise InputError("an empty text is no structure")
        if text.lstrip()[0] in "{[":
            return cls(tinynas.read_text(text, index), "tinynas")
        if index not in (None, 0):
            raise InputError(f"index is {index}, but a text of notation zennas holds one structure")
        return cls(plainnet.read_text(text), "zennas")

    @classmethod
    def from_tinynas(cls, document: Any, index: int | None = None) -> Structure:
        """From what a TinyNAS file holds, as Python or JSON objects; `index` as in `parse`.

        Raises InputError with the place and the reason.
        """
        return cls(tinynas.read_document(document, index), "tinynas")

    @classmethod
    def load(cls, path: str | os.PathLike[str], index: int | None = None) -> Structure:
        """Read a text file of either notation; `index` as in `parse`.

        Raises InputError naming the file, the place and the reason.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        try:
            return cls.parse(text, index)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def to_text(self) -> str:
        """One line in its notation; parsing it gives an equal structure."""
        return _WRITE[self.notation](self.blocks)

    # ---- what is inside ---------------------------------------------------------------------------------------

    def units(self, resolution: int, frames: int = 1, *, use_se: bool = False, floor: bool = False) -> tuple[Unit, ...]:
        """Its units in order, for square images of `resolution` pixels a side (videos of `frames` frames).

        With a stride sizes are rounded up, as convolutions do; `floor` rounds them down, as both programs count.
        `use_se` adds squeeze-and-excite to notation zennas.
        """
        return expand(self, resolution, frames, use_se=use_se, floor=floor)

    def stages(self, resolution: int, *, floor: bool = True) -> tuple[Stage, ...]:
        """Its stages: a new one begins at every block with a stride, except the first block. Sizes as in `units`."""
        return stages_of(self.units(resolution, floor=floor))
