"""Networks of the training-free programs as frozen data: ZenNAS structure strings and TinyNAS structure files.

    SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,40,2,40,1)...            ZenNAS: notation `zennas`
    {'best_structures': [[{'class': 'ConvKXBNRELU', 'in': 3, ...}, ...]], 'space_arch': 'CnnNet'}    TinyNAS: `tinynas`

`Structure.parse` reads either and `to_text` writes it again; `units` takes a structure apart. This module imports no
torch; `StructureNetwork` (`tfnas.spaces.zen.structure_network`) is the module that a structure describes.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.units import ConvShape, Shortcut, SqueezeExciteShape, StageEnd, Unit, stage_ends
from tfnas.spaces.zen import plainnet, tinynas
from tfnas.spaces.zen.block_names import register_block, registered_type, registered_types
from tfnas.spaces.zen.super_block import BLOCK_TYPES, BlockType, Notation, SuperBlock


def expand(structure: Structure, resolution: int, frames: int, *, use_se: bool, floor: bool) -> tuple[Unit, ...]:
    """The units of a structure; what the arguments mean is said at `Structure.units`."""
    check_setting(structure, resolution, frames, use_se)
    units: list[Unit] = []
    stage, size = 0, resolution
    for number, block in enumerate(structure.blocks):
        stage += number > 0 and block.stride > 1
        block_type = structure.block_type(block)
        if block.quantized and not block.has_bits_for(block_type.num_convs(block.layers)):
            block = dataclasses.replace(block, weight_bits=(), activation_bits=())
        squeezes = block_type.squeezes(use_se)
        made: dict[tuple[object, ...], tuple[tuple[ConvShape, ...], SqueezeExciteShape | None, Shortcut | None]] = {}
        for position, channels in enumerate(unit_channels(block, block_type, block.layers)):
            # Most units of a block are equal: made once, a deep network takes a fraction of a millisecond.
            key = (channels, size, position if position == 0 or block.quantized else None)
            if key not in made:
                convs = _convs(block, block_type, position, channels, size, frames, floor)
                squeeze = _squeeze_excite(structure.notation, block_type, convs) if squeezes else None
                made[key] = convs, squeeze, _unit_shortcut(block_type, position, convs)
            activation = block.activation or block_type.activation
            units.append(Unit(number, stage, position, block.block_type, activation, *made[key]))
            size = units[-1].resolution_out
    return tuple(units)


def make_unit(
    block: SuperBlock, notation: Notation, first: bool, channels: tuple[int, int, int], size: int, squeezes: bool
) -> Unit:
    """One unit of a block, on images: its first or another, with these channels in, inside and out."""
    block_type = BLOCK_TYPES[notation, block.block_type]
    position = 0 if first else 1
    convs = _convs(block, block_type, position, channels, size, 1, floor=False)
    squeeze = (
        _squeeze_excite(notation, block_type, convs) if squeezes and block_type.squeeze_excite != "never" else None
    )
    shortcut = _unit_shortcut(block_type, position, convs)
    activation = block.activation or block_type.activation
    return Unit(0, 0, position, block.block_type, activation, convs, squeeze, shortcut)


def round_to_8(value: float) -> int:
    """The multiple of 8 that is nearest, 8 at least; ties go to the even multiple, as the programs have it."""
    return max(8, 8 * round(value / 8))


def check_setting(structure: Structure, resolution: int, frames: int, use_se: bool) -> None:
    """Raise InputError unless a structure can be taken apart so."""
    for name, value in (("resolution", resolution), ("frames", frames)):
        if value < 1:
            raise InputError(f"{name} must be 1 or more, got {value}")
    if use_se and structure.notation == "tinynas":
        raise InputError("use_se is for notation zennas; in tinynas the class of a block says whether it has it")
    if frames > 1 and not structure.is_video:
        raise InputError(f"this structure takes images, not videos of {frames} frames")


def unit_channels(block: SuperBlock, block_type: BlockType, layers: int) -> Iterator[tuple[int, int, int]]:
    """Channels in, inside and out of every unit of a block's first so many layers; from the second on layers repeat."""
    current, inside = block.in_channels, block.bottleneck or block.out_channels
    for _ in range(layers if block_type.repeats else 1):
        for number in range(block_type.units_per_layer):
            if not block_type.expands_output:
                yield current, inside, block.out_channels
                current = block.out_channels
            else:
                out = block.out_channels if number == block_type.units_per_layer - 1 else inside
                yield current, round_to_8(out * (block.expansion or 1)), out
                current = out


def _convs(
    block: SuperBlock,
    block_type: BlockType,
    position: int,
    channels: tuple[int, int, int],
    size: int,
    frames: int,
    floor: bool,
) -> tuple[ConvShape, ...]:
    """The convolutions of a block's unit, which receives `size` pixels a side."""
    convs: list[ConvShape] = []
    last = len(block_type.layers) - 1
    for number, layer in enumerate(block_type.layers):
        inputs = channels[0] if number == 0 else channels[1]
        stride = block.stride if position == 0 and number == block_type.strided else 1
        bits = position * len(block_type.layers) + number
        conv = ConvShape(
            inputs,
            channels[2] if number == last else channels[1],
            1 if layer == "point" else block.kernel,
            stride,
            inputs if layer == "depthwise" else block.groups,
            size,
            size // stride if floor else -(-size // stride),
            1 if layer == "point" else block.temporal_kernel or 1,
            frames,
            weight_bits=block.weight_bits[bits] if block.weight_bits else None,
            activation_bits=block.activation_bits[bits] if block.activation_bits else None,
        )
        convs.append(conv)
        size = conv.resolution_out
    return tuple(convs)


def _squeeze_excite(notation: Notation, block_type: BlockType, convs: tuple[ConvShape, ...]) -> SqueezeExciteShape:
    assert block_type.squeeze_excite_after is not None
    channels = convs[block_type.squeeze_excite_after].out_channels
    return SqueezeExciteShape(block_type.squeeze_excite_after, channels, squeezed_channels(notation, channels))


def squeezed_channels(notation: Notation, channels: int) -> int:
    """Channels between the two convolutions of squeeze-and-excite on so many channels."""
    return max(1, round(channels * 0.25)) if notation == "zennas" else max(1, round(channels / 4) // 8) * 8


def _unit_shortcut(block_type: BlockType, position: int, convs: tuple[ConvShape, ...]) -> Shortcut | None:
    first, last = convs[0], convs[-1]
    stride = convs[block_type.strided].stride
    changes = first.in_channels != last.out_channels
    if block_type.shortcut == "none" or (block_type.shortcut == "identity" and changes):
        return None
    strided = block_type.shortcut == "strided"
    projects = (block_type.projects_first and position == 0) or changes or (strided and stride > 1)
    projection = ConvShape(
        first.in_channels,
        last.out_channels,
        1,
        stride if strided else 1,
        1,
        first.resolution_in if strided else last.resolution_out,
        last.resolution_out,
        frames=first.frames,
        bias=strided,
        weight_bits=first.weight_bits,  # a quantised unit's shortcut has those of its first convolution
        activation_bits=first.activation_bits,
    )
    return Shortcut(not strided and stride > 1, projection if projects else None)


LARGEST_TEXT = 1_000_000
_BYTE_ORDER_MARK = "\ufeff"
_BLOCK_NAMES: dict[Notation, Callable[[SuperBlock], str]] = {
    "zennas": plainnet.block_name,
    "tinynas": tinynas.block_name,
}
_WRITE: dict[Notation, Callable[[tuple[SuperBlock, ...]], str]] = {
    "zennas": plainnet.write_text,
    "tinynas": tinynas.write_text,
}


@dataclass(frozen=True)
class Structure:
    """A network as a list of super-blocks.

    Raises InputError naming the block, counted from 1, where channels do not match or a block cannot stand.
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
                raise InputError(f"block {number} of {len(self.blocks)} ({block.block_type}): {error}") from error

    def _check(self, block: SuperBlock, before: SuperBlock | None) -> None:
        if (self.notation, block.block_type) not in BLOCK_TYPES and registered_type(block.block_type) is None:
            known = ", ".join(name for notation, name in BLOCK_TYPES if notation == self.notation)
            raise InputError(f"there is no such block type in notation {self.notation}, which has {known}")
        _BLOCK_NAMES[self.notation](block)  # what cannot be written down cannot stand
        if before is not None and before.out_channels != block.in_channels:
            raise InputError(
                f"channels do not match: it expects {block.in_channels}, "
                f"the previous block outputs {before.out_channels}"
            )
        if (block.temporal_kernel is None) != (self.blocks[0].temporal_kernel is None):
            raise InputError("blocks for images and blocks for videos cannot be in one network")

    @classmethod
    def of_valid(cls, blocks: Iterable[SuperBlock], notation: Notation) -> Structure:
        """A structure of blocks which the caller knows to be valid: nothing is checked."""
        found = object.__new__(cls)
        found.__dict__.update(blocks=tuple(blocks), notation=notation)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """With the registered types of its blocks, which another process does not know."""
        return _unpickled, (self.blocks, self.notation, registered_types(block.block_type for block in self.blocks))

    def __hash__(self) -> int:
        """Computed once; see `SuperBlock`."""
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = hash(self.blocks)
            object.__setattr__(self, "_hash", found)
        return found

    def block_type(self, block: SuperBlock) -> BlockType:
        """How the units of a block of this structure are made."""
        return BLOCK_TYPES[self.notation, block.block_type]

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
        """Total stride: image pixels per pixel of the last feature map, per side."""
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
            raise InputError(f"a text of {len(text)} characters is not a structure")
        lines = text.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        text = "\n".join("" if line.lstrip().startswith("#") else line for line in lines)
        if not text.strip():
            raise InputError("an empty text is not a structure")
        if text.lstrip()[0] in "{[":
            return cls(tinynas.read_text(text, index), "tinynas")
        if index not in (None, 0):
            raise InputError(f"index is {index}, but a text of notation zennas contains one structure")
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

    def stages(self, resolution: int, *, floor: bool = True) -> tuple[StageEnd, ...]:
        """Its stages: a new one begins at every block with a stride, except the first block. Sizes as in `units`."""
        return stage_ends(self.units(resolution, floor=floor))


def _unpickled(blocks: tuple[SuperBlock, ...], notation: Notation, own_types: Mapping[str, BlockType]) -> Structure:
    """A structure from another process."""
    for name, block_type in own_types.items():
        register_block(name, block_type)
    return Structure.of_valid(blocks, notation)
