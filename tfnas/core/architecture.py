"""What was chosen: a network of MBConv blocks as frozen data, with a lossless text form and two JSON forms.

The text form of a small network, one part per colon (image, stem, second stem, stages, feature mix):

    i3x16_n10:conv_k3_s1_c16_relu:mb_k3_s1_m16_se4_c16_relu:mb_k5_s2_m60_w32-64_c24_relu,mb_...:conv_k1_s1_c96_swish

`m` is the width inside the block, `w` the range it may be fitted in (`w64-128x8`: in steps of 8 only), `c` the output
channels; an empty stage is `-`.
The authors' JSON form (`model.config`) is described in the paper's released program; `from_model_config` reads it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json_file, short
from tfnas.core.mbconv_blocks import (
    MOST_CLASSES,
    MOST_IMAGE_SIZE,
    Block,
    Conv,
    check_number,
    output_size,
    parse_block,
    parse_conv,
    read_model_config,
    write_model_config,
)

_HEAD_TEXT = re.compile(r"i(\d{1,9})x(\d{1,9})_n(\d{1,9})", re.ASCII)
JSON_FORMAT = "tfnas-architecture"
JSON_VERSION = 1
RUN_FILE = "architecture.json"


class Place(NamedTuple):
    """Position of a block: stage and position count from 0, `input_size` in pixels."""

    stage: int
    position: int
    block: Block
    input_size: int


@dataclass(frozen=True)
class Architecture:
    """A whole network of MBConv blocks: what `Network` builds, tables price and files hold."""

    family: ClassVar[str] = "mbconv"
    image_size: int
    num_classes: int
    first_stem: Conv
    second_stem: Block
    stages: tuple[tuple[Block, ...], ...]
    feature_mix: Conv

    def __post_init__(self) -> None:
        check_number("image_size", self.image_size, MOST_IMAGE_SIZE)
        check_number("num_classes", self.num_classes, MOST_CLASSES)
        channels = self.first_stem.out_channels
        for name, part in self._chain():
            if part.in_channels != channels:
                raise InputError(f"{name} expects {part.in_channels} input channels, but gets {channels}")
            channels = part.out_channels

    def _chain(self) -> Iterator[tuple[str, Block | Conv]]:
        yield "second_stem", self.second_stem
        for stage, blocks in enumerate(self.stages, 1):
            for position, block in enumerate(blocks, 1):
                yield f"stage{stage}.block{position}", block
        yield "feature_mix", self.feature_mix

    @property
    def in_channels(self) -> int:
        """Channels of its images."""
        return self.first_stem.in_channels

    def adapted(self, *, image_size: int, num_classes: int) -> Architecture:
        """The same network for other images and classes."""
        return dataclasses.replace(self, image_size=image_size, num_classes=num_classes)

    @property
    def stem_output_size(self) -> int:
        """Pixels along a side of what the first stage receives."""
        size = output_size(self.image_size, self.first_stem.stride)
        return output_size(size, self.second_stem.stride)

    @property
    def blocks(self) -> tuple[Place, ...]:
        """The blocks of all stages in order, with their places."""
        places, size = [], self.stem_output_size
        for stage, blocks in enumerate(self.stages):
            for position, block in enumerate(blocks):
                places.append(Place(stage, position, block, size))
                size = output_size(size, block.stride)
        return tuple(places)

    @property
    def feature_mix_size(self) -> int:
        """Pixels along a side of what the feature mix receives."""
        size = self.stem_output_size
        for place in self.blocks:
            size = output_size(place.input_size, place.block.stride)
        return size

    def with_widths(self, widths: Mapping[tuple[int, int], int]) -> Architecture:
        """The same architecture with the width of each named (stage, position) replaced."""
        stages = tuple(
            tuple(
                block.with_width(widths.get((stage, position), block.mid_channels))
                for position, block in enumerate(blocks)
            )
            for stage, blocks in enumerate(self.stages)
        )
        return dataclasses.replace(self, stages=stages)

    # ---- text -------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """One line without spaces; `Architecture.parse` gives back an equal architecture."""
        stages = [",".join(block.to_text() for block in blocks) or "-" for blocks in self.stages]
        head = f"i{self.first_stem.in_channels}x{self.image_size}_n{self.num_classes}"
        stems = [self.first_stem.to_text(), self.second_stem.to_text()]
        return ":".join([head, *stems, *stages, self.feature_mix.to_text()])

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the text form. Raises InputError naming the part that does not fit."""
        head, *parts = text.strip().split(":")
        found = _HEAD_TEXT.fullmatch(head)
        if found is None or len(parts) < 3:
            raise InputError(
                f"not the text form of an architecture: {text[:80]!r} (expected i3x224_n1000:conv_...:mb_...)"
            )
        channels, image_size, num_classes = (int(number) for number in found.groups())
        first_stem = parse_conv(parts[0], channels)
        second_stem = parse_block(parts[1], first_stem.out_channels)
        channels, stages = second_stem.out_channels, []
        for part in parts[2:-1]:
            blocks = []
            for item in [] if part == "-" else part.split(","):
                blocks.append(parse_block(item, channels))
                channels = blocks[-1].out_channels
            stages.append(tuple(blocks))
        return cls(image_size, num_classes, first_stem, second_stem, tuple(stages), parse_conv(parts[-1], channels))

    # ---- our JSON ---------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Our JSON form: every field under its own name, with format and version; `mid_step` only where it is not 1."""
        document = dataclasses.asdict(self)
        for block in (document["second_stem"], *(block for stage in document["stages"] for block in stage)):
            if block["mid_step"] == 1:
                del block["mid_step"]
        return {"format": JSON_FORMAT, "version": JSON_VERSION, **document}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Architecture:
        """Read our JSON form. Raises InputError for another format, version or a missing or wrong field."""
        if document.get("format") != JSON_FORMAT or document.get("version") != JSON_VERSION:
            raise InputError(
                f"expected format {JSON_FORMAT!r} version {JSON_VERSION}, "
                f"got {document.get('format')!r} version {document.get('version')!r}"
            )
        try:
            _check_fields(document, cls, {"format", "version"})
            return cls(
                image_size=_whole(document["image_size"], "image_size"),
                num_classes=_whole(document["num_classes"], "num_classes"),
                first_stem=_conv_from_json(document["first_stem"]),
                second_stem=_block_from_json(document["second_stem"]),
                stages=tuple(tuple(_block_from_json(block) for block in blocks) for blocks in document["stages"]),
                feature_mix=_conv_from_json(document["feature_mix"]),
            )
        except KeyError as error:
            raise InputError(f"field {error.args[0]!r} is missing") from error
        except (TypeError, AttributeError, IndexError) as error:
            raise InputError(f"a field has the wrong type ({error})") from error

    # ---- the authors' JSON ------------------------------------------------------------------------------------

    def to_model_config(self) -> dict[str, Any]:
        """The authors' `model.config` document."""
        return write_model_config(self.first_stem, self.second_stem, self.stages, self.feature_mix, self.num_classes)

    @classmethod
    def from_model_config(cls, document: Mapping[str, Any], *, image_size: int = 224) -> Architecture:
        """Read the authors' `model.config` document, which carries no image size. Raises InputError naming the key."""
        return cls(image_size=image_size, **read_model_config(document))

    # ---- files ------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, image_size: int = 224) -> Architecture:
        """Read our JSON, the authors' `model.config`, or a run directory; `image_size` is for `model.config` only.

        Raises InputError naming the file when it is missing or is none of these.
        """
        file = Path(path) / RUN_FILE if Path(path).is_dir() else Path(path)
        try:
            document = load_json_file(file)
        except FileNotFoundError as error:
            raise InputError(
                f"no architecture at {file}: give architecture.json, model.config or a run directory"
            ) from error
        if not isinstance(document, dict):
            raise InputError(f"{file}: an architecture is a JSON object, this is a {type(document).__name__}")
        try:
            if "format" in document:
                return cls.from_json(document)
            return cls.from_model_config(document, image_size=image_size)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error


def _check_fields(document: Mapping[str, Any], kind: type[Any], besides: Set[str] = frozenset()) -> None:
    """Refuse fields of an object that its dataclass has not: what they say would be lost."""
    unknown = sorted(set(document) - {field.name for field in dataclasses.fields(kind)} - besides)
    if unknown:
        raise InputError(f"unknown field {short(unknown[0])}")


def _whole(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{field} must be a whole number, got {short(value)}")
    return value


def _conv_from_json(fields: Mapping[str, Any]) -> Conv:
    _check_fields(fields, Conv)
    numbers = {name: _whole(fields[name], name) for name in ("in_channels", "out_channels", "kernel_size", "stride")}
    return Conv(**numbers, activation=fields["activation"])


def _block_from_json(fields: Mapping[str, Any]) -> Block:
    _check_fields(fields, Block)
    names = ("in_channels", "mid_channels", "se_channels", "out_channels", "kernel_size", "stride")
    numbers = {name: _whole(fields[name], name) for name in names}
    bounds = [_whole(bound, "mid_range") for bound in fields["mid_range"]]
    if len(bounds) != 2:
        raise InputError(f"mid_range must be two whole numbers, got {bounds}")
    step = _whole(fields.get("mid_step", 1), "mid_step")
    return Block(**numbers, activation=fields["activation"], mid_range=(bounds[0], bounds[1]), mid_step=step)
