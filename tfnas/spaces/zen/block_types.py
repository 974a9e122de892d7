"""The one parametrised family of residual units that both notations' super-blocks are made of.

A unit is one to three convolutions, each followed by batch norm, with an activation between them, a shortcut around
them, and an activation at the end. A `BlockType` says which convolutions, which of them has the stride, and what the
shortcut is. Source: the programs ZenNAS (idstcv) and TinyNAS (lightweight-neural-architecture-search).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Notation = Literal["zennas", "tinynas"]
Layer = Literal["point", "full", "depthwise"]
Shortcut = Literal["none", "strided", "pooled", "identity"]


@dataclass(frozen=True)
class BlockType:
    """How the units of a super-block are made."""

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
    squeeze_excite: Literal["never", "if asked", "always"] = "never"
    activation: Literal["relu", "silu"] = "relu"
    expands_output: bool = False
    """Whether widths inside are multiples (`expansion`) of a unit's output instead of the bottleneck."""

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
"""Every block type by notation and name."""

BATCH_NORM_EPSILON: dict[Notation, float] = {"zennas": 1e-3, "tinynas": 1e-5}
