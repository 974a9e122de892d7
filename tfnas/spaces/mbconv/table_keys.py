"""Keys of a table: the authors' of a block, ours of stems, feature mix and classifier; and a space's widths per key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfnas.core.architecture import Architecture
from tfnas.core.mbconv_blocks import Block, Conv, output_size
from tfnas.core.space import SearchSpace

KEY_PATTERN = re.compile(
    r"MBInvertedResBlock_[1-9]\d*_[1-9]\d*_\d+_[1-9]\d*_k[1-9]\d*_s[1-9]\d*_[a-z]+(_m[1-9]\d*)?", re.ASCII
)
"""The form of a block's key: `MBInvertedResBlock_{input size}_{in}_{se}_{out}_k{k}_s{s}_{act}`, and `_m{in}` behind it
for a block that never expands."""

STEM_PARTS = ("first_stem", "second_stem", "feature_mix")
"""What every network of a space has besides its blocks and the classifier; with that, the table's base."""


def latency_key(block: Block, input_size: int) -> str:
    """The key of a block that receives `input_size` x `input_size` pixels.

    Blocks that differ in width only, such as k3_e3 and k3_e6 without SE, share the authors' key. One that
    never expands has a key of its own, with its width: it lacks a layer, so nothing leads from its latency to theirs.
    """
    return key_with_width(block, input_size) if never_expands(block) else authors_key(block, input_size)


def never_expands(block: Block) -> bool:
    """Whether a block is without an expansion at any width that it may take."""
    return block.mid_range[1] == block.in_channels


def key_with_width(block: Block, input_size: int) -> str:
    """A name that says all its latency depends on."""
    return f"{authors_key(block, input_size)}_m{block.mid_channels}"


def authors_key(block: Block, input_size: int) -> str:
    """The key in the authors' tables, which price a block of any width under it, expansion or not."""
    return (
        f"MBInvertedResBlock_{input_size}_{block.in_channels}_{block.se_channels}_{block.out_channels}"
        f"_k{block.kernel_size}_s{block.stride}_{block.activation}"
    )


def stem_keys(architecture: Architecture) -> dict[str, str]:
    """For each of `STEM_PARTS`, a name that says all its latency depends on, in the manner of a block's key."""
    stem, second, mix = architecture.first_stem, architecture.second_stem, architecture.feature_mix
    size = architecture.image_size
    return {
        "first_stem": _conv_key(stem, size),
        "second_stem": key_with_width(second, output_size(size, stem.stride)),
        "feature_mix": _conv_key(mix, architecture.feature_mix_size),
    }


def classifier_key(architecture: Architecture) -> str:
    """The name of the classifier; the number of classes is no part of it."""
    return f"Classifier_{architecture.feature_mix_size}_{architecture.feature_mix.out_channels}"


@dataclass(frozen=True)
class KeyWidths:
    """The widths (ascending) that a space gives the blocks of one key; operations that differ in width share them."""

    block: Block
    """One of these blocks, at its operation's initial width."""
    input_size: int
    widths: tuple[int, ...]

    def at(self, width: int) -> Block:
        """The block at a width, with all widths of the key as its range."""
        mid_range = self.widths[0], self.widths[-1]
        return Block(**{**vars(self.block), "mid_channels": width, "mid_range": mid_range})


def widths_by_key(space: SearchSpace) -> dict[str, KeyWidths]:
    """Every key that the space can hold, in the order of its blocks."""
    found: dict[str, tuple[Block, int, set[int]]] = {}
    for place, blocks in zip(space.blocks, space.initial_blocks, strict=True):
        for block in blocks:
            entry = found.setdefault(latency_key(block, place.input_size), (block, place.input_size, set()))
            entry[2].update(block.widths)
    return {key: KeyWidths(block, size, tuple(sorted(widths))) for key, (block, size, widths) in found.items()}


def _conv_key(conv: Conv, input_size: int) -> str:
    return (
        f"ConvLayer_{input_size}_{conv.in_channels}_{conv.out_channels}"
        f"_k{conv.kernel_size}_s{conv.stride}_{conv.activation}"
    )
