"""What may be chosen: stages, depths, widths and operations of a space, as frozen data.

The built-in spaces are YAML files (`tfnas/spaces/mbconv/`); a user's own file has the same form, and may say
`extends: imagenet` and then only what differs: `operations: [k3_e3, k3_e6]` searches without 5x5 kernels and SE.
Source of the structure: TF-NAS (arXiv 2008.05314), section 3 and table 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import ACTIVATIONS, Block, Conv, output_size

IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class Operation:
    """One of the MBConv operations a block chooses from, named like `k5_e6_se`.

    With expansion 1 (`k3_e1`) there is no 1x1 convolution that widens the input: the depthwise convolution takes the
    input's channels, as in the first block of MobileNetV2, and the block has that one width.
    """

    kernel_size: int
    expansion: int
    se: bool

    @property
    def name(self) -> str:
        """Kernel, expansion and squeeze-and-excite as text: `k3_e3`, `k5_e6_se`."""
        return f"k{self.kernel_size}_e{self.expansion}{'_se' if self.se else ''}"

    @classmethod
    def parse(cls, name: str) -> Operation:
        """Read `k5_e6_se`. Raises InputError for anything else."""
        found = re.fullmatch(r"k(\d+)_e(\d+)(_se)?", name)
        if found is None:
            raise InputError(f"{name!r} is not an operation; expected k<kernel>_e<expansion>[_se], such as k5_e3_se")
        kernel_size, expansion = int(found[1]), int(found[2])
        if kernel_size % 2 == 0:
            raise InputError(f"{name!r}: the kernel size must be odd")
        if expansion < 1:
            raise InputError(f"{name!r}: the expansion must be 1 (none) or more")
        return cls(kernel_size, expansion, found[3] is not None)

    @property
    def expands(self) -> bool:
        """Whether a 1x1 convolution widens the input first; only then is the width free."""
        return self.expansion > 1

    def se_channels(self, in_channels: int) -> int:
        """Width of the SE bottleneck: expansion * in / 3, rounded down (in for e3, 2*in for e6), but 1 at least.

        0 without SE. It does not follow the block's width.
        """
        return max(1, self.expansion * in_channels // 3) if self.se else 0


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution; the stride is on the first. `min_blocks` is 0 where the whole stage can be skipped."""

    channels: int
    stride: int
    blocks: int
    activation: str
    min_blocks: int = 1


class BlockPlace(NamedTuple):
    """A searchable block: stage and position count from 0, `input_size` in pixels."""

    stage: int
    position: int
    in_channels: int
    out_channels: int
    stride: int
    activation: str
    input_size: int

    @property
    def name(self) -> str:
        """The name people and checkpoints use, counting from 1: `stage2.block1`."""
        return f"stage{self.stage + 1}.block{self.position + 1}"


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A search space. An operation's width lies within `width_bounds` * expansion * input channels.

    Widths are multiples of `width_multiple` only. Neither holds for an operation that does not expand: its width is
    that of its input. `schedule` holds the space's defaults for training, as its file has them: names and plain values,
    which mean what the search that reads them says.
    """

    name: str
    image_size: int
    stem_channels: int
    stem_stride: int
    stem_activation: str
    second_stem_channels: int
    second_stem_se_channels: int
    stages: tuple[Stage, ...]
    feature_mix_channels: int
    feature_mix_activation: str
    operations: tuple[Operation, ...]
    width_bounds: tuple[Fraction, Fraction] = (Fraction(2, 3), Fraction(4, 3))
    width_multiple: int = 1
    schedule: Mapping[str, bool | int | float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        positive = ("image_size", "stem_channels", "stem_stride", "second_stem_channels", "feature_mix_channels")
        for name in (*positive, "width_multiple"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.second_stem_se_channels < 0:
            raise InputError(f"second_stem_se_channels must be 0 (none) or more, got {self.second_stem_se_channels}")
        for name in ("stem_activation", "feature_mix_activation"):
            _check_activation(name, getattr(self, name))
        if not self.stages:
            raise InputError("stages must contain at least one stage")
        if not self.operations:
            raise InputError("operations must name one operation at least")
        if len(set(self.operations)) < len(self.operations):
            raise InputError(f"operations must differ, got {[operation.name for operation in self.operations]}")
        low, high = self.width_bounds
        if not 0 < low <= 1 <= high:
            raise InputError(f"width_bounds must be 0 < lowest <= 1 <= highest, got {low} and {high}")
        self._check_stages()

    def _check_stages(self) -> None:
        channels = self.second_stem_channels
        for index, stage in enumerate(self.stages):
            where = f"stages[{index}]"
            for name in ("channels", "blocks"):
                if getattr(stage, name) < 1:
                    raise InputError(f"{where}.{name} must be 1 or more, got {getattr(stage, name)}")
            if stage.stride not in (1, 2):
                raise InputError(f"{where}.stride must be 1 or 2, got {stage.stride}")
            _check_activation(f"{where}.activation", stage.activation)
            skippable = stage.stride == 1 and stage.channels == channels
            if not (0 if skippable else 1) <= stage.min_blocks <= stage.blocks:
                why = "" if skippable else " (0 only where stride is 1 and the channels stay)"
                raise InputError(
                    f"{where}.min_blocks must be 1 to blocks ({stage.blocks}){why}, got {stage.min_blocks}"
                )
            channels = stage.channels
        for place in self.blocks:
            for operation in self.operations:
                self._check_multiple(place, operation)
                if operation.expands and self.width_range(place, operation)[0] <= place.in_channels:
                    raise InputError(
                        f"width_bounds[0] is too small: {operation.name} in {place.name} would be no wider than its "
                        f"{place.in_channels} input channels"
                    )

    def _check_multiple(self, place: BlockPlace, operation: Operation) -> None:
        low, high = self.width_range(place, operation)
        if low > high:
            low, high = (dataclasses.replace(self, width_multiple=1)).width_range(place, operation)
            raise InputError(
                f"width_multiple {self.width_multiple}: {operation.name} in {place.name} may be {low} to {high} wide, "
                "and no multiple lies there; take a smaller one, or wider width_bounds"
            )

    # ---- structure --------------------------------------------------------------------------------------------

    @cached_property
    def blocks(self) -> tuple[BlockPlace, ...]:
        """All searchable blocks, stage by stage."""
        size = output_size(self.image_size, self.stem_stride)
        channels, places = self.second_stem_channels, []
        for index, stage in enumerate(self.stages):
            for position in range(stage.blocks):
                stride = stage.stride if position == 0 else 1
                places.append(BlockPlace(index, position, channels, stage.channels, stride, stage.activation, size))
                channels, size = stage.channels, output_size(size, stride)
        return tuple(places)

    @cached_property
    def depth_choices(self) -> tuple[tuple[int, ...], ...]:
        """Per stage, the numbers of blocks that may be kept, in the order of its betas."""
        return tuple(tuple(range(stage.min_blocks, stage.blocks + 1)) for stage in self.stages)

    @cached_property
    def first_blocks(self) -> tuple[int, ...]:
        """Per stage, the index of its first block among `blocks`."""
        return tuple(sum(stage.blocks for stage in self.stages[:index]) for index in range(len(self.stages)))

    @property
    def has_expansion(self) -> bool:
        """Whether any operation expands: only these have a width to choose."""
        return any(operation.expands for operation in self.operations)

    def width_range(self, place: BlockPlace, operation: Operation) -> tuple[int, int]:
        """Smallest and largest width of an operation in a block (2*in..4*in for e3 by default; in..in for e1)."""
        if not operation.expands:
            return place.in_channels, place.in_channels
        initial, multiple = operation.expansion * place.in_channels, self.width_multiple
        low, high = self.width_bounds  # in whole numbers, as this is asked for often
        least = -(-low.numerator * initial // (low.denominator * multiple))
        most = high.numerator * initial // (high.denominator * multiple)
        return least * multiple, most * multiple

    def widths(self, place: BlockPlace, operation: Operation) -> range:
        """All widths of an operation in a block, ascending."""
        low, high = self.width_range(place, operation)
        return range(low, high + 1, self.width_multiple if operation.expands else 1)

    def initial_width(self, place: BlockPlace, operation: Operation) -> int:
        """The width a search starts from: expansion times the input channels, or the nearest allowed one."""
        initial, multiple = operation.expansion * place.in_channels, self.width_multiple
        low, high = self.width_range(place, operation)
        return min(max((initial + multiple // 2) // multiple * multiple, low), high)

    def block(self, place: BlockPlace, operation: Operation, width: int) -> Block:
        """The block that an operation becomes at a width."""
        widths = self.widths(place, operation)
        return Block(
            in_channels=place.in_channels,
            mid_channels=width,
            se_channels=operation.se_channels(place.in_channels),
            out_channels=place.out_channels,
            kernel_size=operation.kernel_size,
            stride=place.stride,
            activation=place.activation,
            mid_range=(widths[0], widths[-1]),
            mid_step=1 if len(widths) == 1 else self.width_multiple,
        )

    @cached_property
    def initial_blocks(self) -> tuple[tuple[Block, ...], ...]:
        """For every one of `blocks` what each operation makes of it, at its initial width, with its range of widths."""
        return tuple(
            tuple(self.block(place, operation, self.initial_width(place, operation)) for operation in self.operations)
            for place in self.blocks
        )

    def operation_index(self, place: BlockPlace, block: Block) -> int:
        """Which operation a block is; where its width could be that of two, the one whose range is the block's own.

        Raises InputError when it is none of the space's.
        """
        found = []
        for index, operation in enumerate(self.operations):
            if block.mid_channels in self.widths(place, operation):
                same_width = self.block(place, operation, block.mid_channels)
                bounds, step = same_width.mid_range, same_width.mid_step
                if dataclasses.replace(block, mid_range=bounds, mid_step=step) == same_width:
                    within = bounds[0] <= block.mid_range[0] and block.mid_range[1] <= bounds[1]
                    found.append((block.mid_range != bounds, not within, index))
        if not found:
            raise InputError(f"{place.name} of space {self.name} offers no operation like {block.to_text()}")
        return min(found)[-1]

    @property
    def first_stem(self) -> Conv:
        """The convolution that every network of the space starts with."""
        return Conv(IMAGE_CHANNELS, self.stem_channels, 3, self.stem_stride, self.stem_activation)

    @property
    def second_stem(self) -> Block:
        """The fixed block after it: no expansion, 3x3 depthwise."""
        channels = self.stem_channels
        return Block(
            channels,
            channels,
            self.second_stem_se_channels,
            self.second_stem_channels,
            3,
            1,
            self.stem_activation,
            (channels, channels),
        )

    @property
    def feature_mix(self) -> Conv:
        """The 1x1 convolution before the global average pool and the classifier."""
        return Conv(self.stages[-1].channels, self.feature_mix_channels, 1, 1, self.feature_mix_activation)

    def architecture(
        self, operations: Sequence[int], depths: Sequence[int], widths: Sequence[int], num_classes: int
    ) -> Architecture:
        """The architecture with one operation index and width for every block and one depth for every stage.

        Entries of blocks beyond a stage's depth are not looked at.
        """
        stages: list[list[Block]] = [[] for _ in self.stages]
        for place, operation, width in zip(self.blocks, operations, widths, strict=True):
            if place.position < depths[place.stage]:
                stages[place.stage].append(self.block(place, self.operations[operation], width))
        return Architecture(
            image_size=self.image_size,
            num_classes=num_classes,
            first_stem=self.first_stem,
            second_stem=self.second_stem,
            stages=tuple(tuple(stage) for stage in stages),
            feature_mix=self.feature_mix,
        )

    def shallowest(self, num_classes: int) -> Architecture:
        """The first operation at its initial width everywhere, with the fewest blocks."""
        depths = [min(choices) for choices in self.depth_choices]
        widths = [row[0].mid_channels for row in self.initial_blocks]
        return self.architecture([0] * len(widths), depths, widths, num_classes)

    # ---- variants and identity --------------------------------------------------------------------------------

    def at(self, image_size: int) -> SearchSpace:
        """The same space for another image size."""
        return dataclasses.replace(self, image_size=image_size)

    def in_multiples_of(self, width_multiple: int) -> SearchSpace:
        """The same space with such widths only."""
        return dataclasses.replace(self, width_multiple=width_multiple)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data (fractions and operations as text)."""
        document = dataclasses.asdict(self)
        document["stages"] = list(document["stages"])
        document["operations"] = [operation.name for operation in self.operations]
        document["width_bounds"] = [str(bound) for bound in self.width_bounds]
        return document

    @property
    def fingerprint(self) -> str:
        """Short digest of what may be chosen (name and schedule left out): tells checkpoints of other spaces apart."""
        document = self.to_json()
        del document["name"], document["schedule"]
        if self.width_multiple == 1:  # as before there were multiples
            del document["width_multiple"]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _check_activation(name: str, value: str) -> None:
    if value not in ACTIVATIONS:
        raise InputError(f"{name} must be one of {', '.join(ACTIVATIONS)}, got {value!r}")
