"""A super-block: a stack of equal units, as both notations write a network down, and the types of units there are.

A unit is one to three convolutions, each followed by batch norm, with an activation between them, a shortcut around
them, and an activation at the end. A `BlockType` says which convolutions, which of them has the stride, and what the
shortcut is. Source: the programs ZenNAS (idstcv) and TinyNAS (lightweight-neural-architecture-search).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.core.mbconv_blocks import MOST_CHANNELS, MOST_KERNEL_SIZE, MOST_STRIDE

MOST_LAYERS = 1000
_MOST = {
    "kernel": MOST_KERNEL_SIZE,
    "in_channels": MOST_CHANNELS,
    "out_channels": MOST_CHANNELS,
    "stride": MOST_STRIDE,
    "layers": MOST_LAYERS,
    "bottleneck": MOST_CHANNELS,
    "expansion": MOST_CHANNELS,
    "temporal_kernel": MOST_KERNEL_SIZE,
    "groups": MOST_CHANNELS,
}
MOST_BITS = 64
KNOWN_BLOCKS = 1 << 14
"""How many blocks, and figures of them, a search remembers."""


@dataclass(frozen=True, kw_only=True)
class SuperBlock:
    """`layers` layers from `in_channels` to `out_channels`; the first layer has the stride.

    Raises InputError naming the field that cannot be.
    """

    block_type: str
    """`conv`, `kxkx`, `k1kx`, `k1kxk1`, `idw`, `k1dwk1` or `k1dwsek1` (see `BLOCK_TYPES`), or a registered name."""
    kernel: int
    in_channels: int
    out_channels: int
    stride: int = 1
    layers: int = 1
    bottleneck: int | None = None
    """Channels inside; of `idw`, those between its two units."""
    expansion: int | None = None
    """Of `idw`: channels of the depthwise convolution, as a multiple."""
    temporal_kernel: int | None = None
    """Frames that the k x k convolution spans; none for images."""
    groups: int = 1
    """Of all convolutions but depthwise ones and shortcuts."""
    activation: str | None = None
    """Of a `conv`: `relu` or `silu` where it is written down. The others' follows from the block type."""
    weight_bits: tuple[int, ...] = ()
    """Bits of every convolution's weights, where they are written down. The layers compute in floats.

    Files also hold more or fewer numbers than there are convolutions: those are kept as they stand and mean nothing.
    """
    activation_bits: tuple[int, ...] = ()
    """Bits of every convolution's input, likewise."""
    label: str | None = field(default=None, compare=False)
    """A name that a ZenNAS string may give; it means nothing."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if name not in ("bottleneck", "expansion", "temporal_kernel") or getattr(self, name) is not None:
                _check_number(name, getattr(self, name), most)
        for name in ("kernel", "temporal_kernel"):
            if (getattr(self, name) or 1) % 2 == 0:
                raise InputError(f"{name} must be odd, got {getattr(self, name)}")
        if (self.bottleneck is None) != (self.block_type == "conv"):
            raise InputError("bottleneck must be given, except for plain convolutions")
        if (self.expansion is None) != (self.block_type != "idw"):
            raise InputError("expansion must be given for idw, and for nothing else")
        if self.activation not in (None, "relu", "silu"):
            raise InputError(f"activation must be relu or silu, got {self.activation!r}")
        if self.activation is not None and self.block_type != "conv":
            raise InputError("activation can be chosen for plain convolutions only")
        for channels in (self.in_channels, self.out_channels, self.bottleneck or self.groups):
            if channels % self.groups:
                raise InputError(f"{channels} channels cannot be split into {self.groups} groups")
        for bits in (*self.weight_bits, *self.activation_bits):
            _check_number("bits", bits, MOST_BITS)
        self._remember_hash()

    def __hash__(self) -> int:
        """Computed once, as searches look a block up often, and from numbers alone: in a pickle it stays true."""
        found: int = self.__dict__["_hash"]
        return found

    def _remember_hash(self) -> None:
        numbers = (self.kernel, self.in_channels, self.out_channels, self.stride, self.layers, self.groups)
        optional = (self.bottleneck or 0, self.expansion or 0, self.temporal_kernel or 0)
        self.__dict__["_hash"] = hash((numbers, optional, self.weight_bits, self.activation_bits))

    def changed(self, **fields: Any) -> SuperBlock:
        """The block without its label and with other fields, which the caller knows to be valid: only groups, which
        channels may not divide into, are checked again. Raises InputError where they do not.

        Equal blocks are one object, so that dictionaries find them by identity.
        """
        if self.groups != 1:
            return dataclasses.replace(self, label=None, **fields)
        values = {**self.__dict__, "label": None, **fields}
        del values["_hash"]
        key = tuple(values.values())  # in the order of the fields
        found = _CHANGED.get(key)
        if found is None:
            if len(_CHANGED) >= KNOWN_BLOCKS:
                _CHANGED.clear()
            found = _CHANGED[key] = object.__new__(SuperBlock)
            found.__dict__.update(values)
            found._remember_hash()
        return found

    @property
    def quantized(self) -> bool:
        """Whether bits are written down."""
        return bool(self.weight_bits or self.activation_bits)

    def has_bits_for(self, convs: int) -> bool:
        """Whether bits of weights and inputs are written down for each of so many convolutions."""
        return len(self.weight_bits) == len(self.activation_bits) == convs


_CHANGED: dict[tuple[object, ...], SuperBlock] = {}
"""The blocks that `changed` made, by their fields."""


def _check_number(name: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number from 1 on, got {short(value)}")
    if value > most:
        raise InputError(f"{name} must be {most} at most, got {short(value)}")


def _check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise InputError(f"{name} must be {' or '.join(words)}, got {short(value)}")


Notation = Literal["zennas", "tinynas"]
Layer = Literal["point", "full", "depthwise"]
Shortcut = Literal["none", "strided", "pooled", "identity"]
SqueezeExcite = Literal["never", "if asked", "always"]
BlockActivation = Literal["relu", "silu"]


@dataclass(frozen=True)
class BlockType:
    """How the units of a super-block are made. Raises InputError naming the field that cannot be."""

    layers: tuple[Layer, ...]
    """The convolutions: 1x1 (`point`), k x k (`full`), or k x k with one group per channel (`depthwise`)."""
    strided: int = 0
    """Which of the convolutions has the unit's stride."""
    shortcut: Shortcut = "none"
    """`strided`: a 1x1 convolution with stride and bias, where `projects_first` or the shape changes.
    `pooled`: an average pool where there is a stride, then a 1x1 convolution, where `projects_first` or the channels
    change. `identity`: none where the channels change, else an average pool where there is a stride."""
    projects_first: bool = False
    """Whether the shortcut of a super-block's first unit is a convolution even where no shape changes."""
    units_per_layer: int = 1
    """Units in each of a super-block's layers."""
    repeats: bool = True
    """Whether the number of layers counts at all."""
    squeeze_excite_after: int | None = None
    """After which convolution squeeze-and-excite stands, where a network has it."""
    squeeze_excite: SqueezeExcite = "never"
    """`if asked`: where a structure of notation zennas is to have it."""
    activation: BlockActivation = "relu"
    expands_output: bool = False
    """Whether widths inside are multiples (`expansion`) of a unit's output instead of the bottleneck."""

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not self.layers:
            raise InputError(f"layers must be a tuple of convolutions, got {short(self.layers)}")
        for layer in self.layers:
            _check_word("layers", layer, get_args(Layer))
        _check_word("shortcut", self.shortcut, get_args(Shortcut))
        _check_word("squeeze_excite", self.squeeze_excite, get_args(SqueezeExcite))
        _check_word("activation", self.activation, get_args(BlockActivation))
        if "depthwise" in (self.layers[0], self.layers[-1]):
            raise InputError("layers must not begin or end with depthwise, which cannot change the number of channels")
        _check_number("units_per_layer", self.units_per_layer, MOST_LAYERS)
        places = range(len(self.layers))
        if (self.squeeze_excite_after is None) != (self.squeeze_excite == "never"):
            raise InputError("squeeze_excite_after must be given where squeeze_excite is not never, and only there")
        for name, place in (("strided", self.strided), ("squeeze_excite_after", self.squeeze_excite_after or 0)):
            if place not in places:
                raise InputError(f"{name} must be 0 to {places[-1]}, the place of a layer, got {short(place)}")

    def squeezes(self, use_se: bool) -> bool:
        """Whether its units have squeeze-and-excite in a network that is, or is not, to have it."""
        return self.squeeze_excite == "always" or (use_se and self.squeeze_excite == "if asked")

    def num_convs(self, layers: int) -> int:
        """Convolutions of a super-block of so many layers, without those of shortcuts."""
        return len(self.layers) * self.units_per_layer * (layers if self.repeats else 1)


BLOCK_TYPES: dict[tuple[Notation, str], BlockType] = {
    ("zennas", "conv"): BlockType(("full",)),
    ("zennas", "kxkx"): BlockType(
        ("full", "full"),
        shortcut="strided",
        projects_first=True,
        squeeze_excite_after=0,
        squeeze_excite="if asked",
    ),
    ("zennas", "k1kxk1"): BlockType(
        ("point", "full", "point"),
        strided=1,
        shortcut="strided",
        projects_first=True,
        units_per_layer=2,
        squeeze_excite_after=1,
        squeeze_excite="if asked",
    ),
    ("zennas", "idw"): BlockType(
        ("point", "depthwise", "point"),
        strided=1,
        shortcut="strided",
        projects_first=True,
        units_per_layer=2,
        squeeze_excite_after=1,
        squeeze_excite="if asked",
        expands_output=True,
    ),
    ("tinynas", "conv"): BlockType(("full",), repeats=False),
    ("tinynas", "kxkx"): BlockType(("full", "full"), strided=1, shortcut="pooled"),
    ("tinynas", "k1kx"): BlockType(("point", "full"), strided=1, shortcut="pooled"),
    ("tinynas", "k1kxk1"): BlockType(("point", "full", "point"), strided=1, shortcut="pooled", projects_first=True),
    ("tinynas", "k1dwk1"): BlockType(("point", "depthwise", "point"), strided=1, shortcut="identity"),
    ("tinynas", "k1dwsek1"): BlockType(
        ("point", "depthwise", "point"),
        strided=1,
        shortcut="identity",
        squeeze_excite_after=1,
        squeeze_excite="always",
        activation="silu",
    ),
}
"""Every block type by notation and name, those registered from outside included (`tfnas.spaces.zen.block_names`)."""

BATCH_NORM_EPSILON: dict[Notation, float] = {"zennas": 1e-3, "tinynas": 1e-5}
