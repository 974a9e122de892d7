"""Parameters and multiply-accumulates of an architecture in closed form: no module is built, and torch is not imported.

What counts is said in `tfnas.nn.counting`, which finds the same by walking through a module.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfnas.core.architecture import Architecture
from tfnas.core.blocks import Block, Conv, output_size


@dataclass(frozen=True)
class Counts:
    """`params` and `macs` of one image."""

    params: int
    macs: int


def part_counts(architecture: Architecture) -> dict[str, Counts]:
    """Counts of every part by its name in a Network: `first_stem`, `stage1.0` (the first block of stage 1), ..."""
    stem, mix = architecture.first_stem, architecture.feature_mix
    stem_size = output_size(architecture.image_size, stem.stride)
    parts = {
        "first_stem": _conv_counts(stem, stem_size),
        "second_stem": block_counts(architecture.second_stem, stem_size),
    }
    for place in architecture.blocks:
        parts[f"stage{place.stage + 1}.{place.position}"] = block_counts(place.block, place.input_size)
    parts["feature_mix_layer"] = _conv_counts(mix, architecture.feature_mix_size)
    weights = (mix.out_channels + 1) * architecture.num_classes
    parts["classifier"] = Counts(weights, weights + mix.out_channels * architecture.feature_mix_size**2)
    return parts


def architecture_counts(architecture: Architecture) -> Counts:
    """Counts of the whole network."""
    parts = part_counts(architecture).values()
    return Counts(sum(part.params for part in parts), sum(part.macs for part in parts))


def block_counts(block: Block, input_size: int) -> Counts:
    """Counts of an MBConv block that receives `input_size` x `input_size` pixels."""
    mid, se, pixels = block.mid_channels, block.se_channels, output_size(input_size, block.stride) ** 2
    expansion = block.in_channels * mid if block.expands else 0
    depthwise, projection = mid * block.kernel_size**2, mid * block.out_channels
    excite = 2 * mid * se + se + mid if se else 0
    norms = 2 * (mid * block.expands + mid + block.out_channels)
    macs = expansion * input_size**2 + (depthwise + projection) * pixels + excite
    return Counts(expansion + depthwise + projection + excite + norms, macs)


def _conv_counts(conv: Conv, size: int) -> Counts:
    weights = conv.in_channels * conv.out_channels * conv.kernel_size**2
    return Counts(weights + 2 * conv.out_channels, weights * size**2)
