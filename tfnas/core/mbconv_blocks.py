"""What an architecture of MBConv blocks is made of: convolutions and blocks as frozen data.

Their text form is part of an architecture's. In the TF-NAS authors' JSON form (`model.config`) they are all there is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short

ACTIVATIONS = ("relu", "swish")
MOST_CHANNELS = 65_536
MOST_KERNEL_SIZE = 255
MOST_STRIDE = 255
MOST_IMAGE_SIZE = 65_536
MOST_CLASSES = 2**24
"""What is above is a damaged file: no network of that size is meant, and none fits into a memory."""
_CONV_TEXT, _BLOCK_TEXT = (
    re.compile(pattern.replace("#", r"(\d{1,9})"), re.ASCII)
    for pattern in (
        r"conv_k#_s#_c#_([a-z]+)",
        r"mb_k#_s#_m#(?:_w#-#(?:x#)?)?(?:_se#)?_c#_([a-z]+)",
    )
)


@dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and activation (the first stem and the feature mix)."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str

    def __post_init__(self) -> None:
        _check_layer(self)

    def to_text(self) -> str:
        """Its part of the text form; the input channels follow from what stands before it."""
        return f"conv_k{self.kernel_size}_s{self.stride}_c{self.out_channels}_{self.activation}"


@dataclass(frozen=True)
class Block:
    """An MBConv block: expansion to `mid_channels` (when above `in_channels`), depthwise convolution, SE, projection.

    `mid_range` holds the smallest and largest width that fitting may give it, in steps of `mid_step`; equal bounds mean
    a fixed width, and a step of 1.
    """

    in_channels: int
    mid_channels: int
    se_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    activation: str
    mid_range: tuple[int, int]
    mid_step: int = 1

    def __post_init__(self) -> None:
        _check_layer(self)
        check_number("mid_channels", self.mid_channels, MOST_CHANNELS)
        check_number("mid_step", self.mid_step, MOST_CHANNELS)
        for bound in self.mid_range:
            check_number("mid_range", bound, MOST_CHANNELS)
        check_number("se_channels", self.se_channels, MOST_CHANNELS, least=0)
        if self.mid_channels < self.in_channels:
            raise InputError(f"mid_channels must be at least in_channels ({self.in_channels}), got {self.mid_channels}")
        if not self.mid_range[0] <= self.mid_channels <= self.mid_range[1]:
            raise InputError(f"mid_channels must lie in its range {self.mid_range}, got {self.mid_channels}")
        if self.mid_step > 1:
            self._check_step()

    def _check_step(self) -> None:
        low, high = self.mid_range
        if low == high or (high - low) % self.mid_step:
            raise InputError(f"mid_range must consist of whole steps of {self.mid_step}, got {self.mid_range}")
        if (self.mid_channels - low) % self.mid_step:
            raise InputError(
                f"mid_channels must be {low} to {high} in steps of {self.mid_step}, got {self.mid_channels}"
            )

    @property
    def widths(self) -> range:
        """The widths that fitting may give it."""
        return range(self.mid_range[0], self.mid_range[1] + 1, self.mid_step)

    @property
    def expands(self) -> bool:
        """Whether a 1x1 convolution widens the input first."""
        return self.mid_channels > self.in_channels

    @property
    def has_residual(self) -> bool:
        """Whether the input is added to the output."""
        return self.in_channels == self.out_channels and self.stride == 1

    def with_width(self, mid_channels: int) -> Block:
        """The same block at another width."""
        return dataclasses.replace(self, mid_channels=mid_channels)

    def at_fixed_width(self, mid_channels: int) -> Block:
        """The same block at a width that fitting may not change, in its range or not."""
        return dataclasses.replace(self, mid_channels=mid_channels, mid_range=(mid_channels,) * 2, mid_step=1)

    def to_text(self) -> str:
        """Its part of the text form; the input channels follow from what stands before it."""
        low, high = self.mid_range
        step = "" if self.mid_step == 1 else f"x{self.mid_step}"
        bounds = "" if low == high else f"_w{low}-{high}{step}"
        se = f"_se{self.se_channels}" if self.se_channels else ""
        width = f"m{self.mid_channels}{bounds}{se}"
        return f"mb_k{self.kernel_size}_s{self.stride}_{width}_c{self.out_channels}_{self.activation}"


def output_size(size: int, stride: int) -> int:
    """Pixels after a convolution with `same` padding: the quotient, rounded up."""
    return -(-size // stride)


def check_number(field: str, value: int, most: int, least: int = 1) -> None:
    """Raise InputError unless a number of a network lies within what can be meant."""
    if value < least:
        raise InputError(f"{field} must be {least} or more, got {short(value)}")
    if value > most:
        raise InputError(f"{field} must be {most} at most, got {short(value)}")


def _check_layer(part: Conv | Block) -> None:
    for field in ("in_channels", "out_channels"):
        check_number(field, getattr(part, field), MOST_CHANNELS)
    check_number("kernel_size", part.kernel_size, MOST_KERNEL_SIZE)
    check_number("stride", part.stride, MOST_STRIDE)
    if part.kernel_size % 2 == 0:
        raise InputError(f"kernel_size must be odd, got {part.kernel_size}")
    if part.activation not in ACTIVATIONS:
        raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {part.activation!r}")


def parse_conv(text: str, in_channels: int) -> Conv:
    """Read the text form of a convolution. Raises InputError for anything else."""
    found = _CONV_TEXT.fullmatch(text)
    if found is None:
        raise InputError(f"expected conv_k3_s2_c32_relu, got {text!r}")
    kernel_size, stride, channels = (int(number) for number in found.groups()[:3])
    return Conv(in_channels, channels, kernel_size, stride, found[4])


def parse_block(text: str, in_channels: int) -> Block:
    """Read the text form of a block. Raises InputError for anything else."""
    found = _BLOCK_TEXT.fullmatch(text)
    if found is None:
        raise InputError(f"expected mb_k5_s2_m90_w64-128_se32_c24_relu, got {text!r}")
    numbers = (None if number is None else int(number) for number in found.groups()[:8])
    kernel_size, stride, mid, low, high, step, se, channels = numbers
    assert kernel_size is not None and stride is not None and mid is not None and channels is not None
    mid_range = (mid, mid) if low is None or high is None else (low, high)
    return Block(in_channels, mid, se or 0, channels, kernel_size, stride, found[9], mid_range, step or 1)


# ---- model.config: the keys and constants of the authors' released program ----------------------------------------

# What every layer of theirs says and our networks have too; a document that says otherwise is refused, not ignored.
_COMMON = {"groups": 1, "has_shuffle": False, "bias": False, "use_bn": True, "affine": True}
_CONV_CONSTANTS = {"name": "ConvLayer", **_COMMON, "ops_order": "weight_bn_act"}
_BLOCK_CONSTANTS = {"name": "MBInvertedResBlock", **_COMMON}
_STAGE_NAME = re.compile(r"stage[1-9]\d{0,3}", re.ASCII)
_CLASSIFIER_CONSTANTS = {
    "name": "LinearLayer",
    "bias": True,
    "use_bn": False,
    "affine": False,
    "act_func": None,
    "ops_order": "weight_bn_act",
}


def write_model_config(
    first_stem: Conv, second_stem: Block, stages: Sequence[Sequence[Block]], feature_mix: Conv, num_classes: int
) -> dict[str, Any]:
    """The document: keys `first_stem`, `second_stem`, `stage1`..., `feature_mix_layer`, `classifier`."""
    document: dict[str, Any] = {
        "first_stem": _write_conv(first_stem),
        "second_stem": _write_block(second_stem),
    }
    for stage, blocks in enumerate(stages, 1):
        document[f"stage{stage}"] = [_write_block(block) for block in blocks]
    document["feature_mix_layer"] = _write_conv(feature_mix)
    document["classifier"] = {
        "in_features": feature_mix.out_channels,
        "out_features": num_classes,
        **_CLASSIFIER_CONSTANTS,
    }
    return document


def read_model_config(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the architecture of a document, all but the image size.

    Raises InputError naming the key that is missing, unknown or not supported.
    """
    stage_names = sorted((key for key in document if _STAGE_NAME.fullmatch(key)), key=lambda key: int(key[5:]))
    expected = {"first_stem", "second_stem", "feature_mix_layer", "classifier", *stage_names}
    if stage_names != [f"stage{n}" for n in range(1, len(stage_names) + 1)] or not stage_names:
        raise InputError(
            f"expected keys stage1, stage2, ... without a gap, got {stage_names}; "
            "give a model.config or architecture.json"
        )
    if set(document) != expected:
        missing, unknown = sorted(expected - set(document)), sorted(set(document) - expected)
        raise InputError(f"not a model.config: missing keys {missing}, unknown keys {unknown}")
    feature_mix = _read_conv(document["feature_mix_layer"], "feature_mix_layer")
    classifier = _read(document["classifier"], "classifier", _CLASSIFIER_CONSTANTS, ("in_features", "out_features"))
    if classifier["in_features"] != feature_mix.out_channels:
        raise InputError(
            f"classifier.in_features is {classifier['in_features']}, the feature mix gives {feature_mix.out_channels}"
        )
    return {
        "num_classes": classifier["out_features"],
        "first_stem": _read_conv(document["first_stem"], "first_stem"),
        "second_stem": _read_block(document["second_stem"], "second_stem", elastic=False),
        "stages": tuple(
            tuple(
                _read_block(block, f"{name}[{n}]", elastic=True) for n, block in enumerate(_list(document[name], name))
            )
            for name in stage_names
        ),
        "feature_mix": feature_mix,
    }


def _write_conv(conv: Conv) -> dict[str, Any]:
    return {
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "act_func": conv.activation,
        **_CONV_CONSTANTS,
    }


def _write_block(block: Block) -> dict[str, Any]:
    return {
        "in_channels": block.in_channels,
        "mid_channels": block.mid_channels,
        "se_channels": block.se_channels,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "act_func": block.activation,
        **_BLOCK_CONSTANTS,
    }


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{name} must be a list of blocks, got {type(value).__name__}")
    return value


def _read(fields: object, where: str, constants: Mapping[str, Any], numbers: tuple[str, ...]) -> dict[str, int]:
    """The whole-number fields of one layer, after checking that everything else says what our networks do."""
    if not isinstance(fields, dict):
        raise InputError(f"{where} must be an object, got {type(fields).__name__}")
    expected = {*constants, *numbers} | ({"act_func"} if "act_func" not in constants else set())
    if set(fields) != expected:
        missing, unknown = sorted(expected - set(fields)), sorted(set(fields) - expected)
        raise InputError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    for name, value in constants.items():
        if fields[name] != value:
            raise InputError(f"{where}.{name} is {short(fields[name])}; only {value!r} is supported")
    for name in numbers:
        if not isinstance(fields[name], int) or isinstance(fields[name], bool):
            raise InputError(f"{where}.{name} must be a whole number, got {short(fields[name])}")
    return {name: fields[name] for name in numbers}


def _read_conv(fields: object, where: str) -> Conv:
    numbers = _read(fields, where, _CONV_CONSTANTS, ("kernel_size", "stride", "in_channels", "out_channels"))
    assert isinstance(fields, dict)
    try:
        return Conv(**numbers, activation=fields["act_func"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _read_block(fields: object, where: str, *, elastic: bool) -> Block:
    names = ("in_channels", "mid_channels", "se_channels", "out_channels", "kernel_size", "stride")
    numbers = _read(fields, where, _BLOCK_CONSTANTS, names)
    assert isinstance(fields, dict)
    mid = numbers["mid_channels"]
    mid_range = _infer_range(numbers["in_channels"], mid, numbers["se_channels"]) if elastic else (mid, mid)
    try:
        return Block(**numbers, activation=fields["act_func"], mid_range=mid_range)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _infer_range(in_channels: int, mid: int, se: int) -> tuple[int, int]:
    """The range of the operation the width came from (the paper's `e3` or `e6`); the document does not say which.

    SE width tells (in for e3, 2*in for e6); without SE the width does, except that 4*in is both the largest e3 and
    the smallest e6: the wider choice is taken there only when the SE width says so. A width outside stays fixed.
    """
    small, large = (2 * in_channels, 4 * in_channels), (4 * in_channels, 8 * in_channels)
    is_large = se == 2 * in_channels if se else mid > 4 * in_channels
    low, high = large if is_large else small
    return (low, high) if low <= mid <= high else (mid, mid)
