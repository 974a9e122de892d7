"""What an architecture of MBConv blocks is made of, with its text form: convolutions and blocks as frozen data."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

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
