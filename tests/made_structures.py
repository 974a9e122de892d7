"""Random structures with blocks of every type: any that can be written down, not only those that a search draws."""

from __future__ import annotations

from tfnas.core.errors import InputError
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.super_block import BLOCK_TYPES, SuperBlock


def random_structure(generator, notation, *, video=False, quantized=False, kinds=None, most_layers=4):
    """A chain of 1 to 7 blocks; of notation tinynas with groups now and then."""
    names = kinds or [name for known, name in BLOCK_TYPES if known == notation]
    if video:
        names = ["conv", "k1dwk1"]
    blocks, channels = [], 3
    for number in range(int(generator.integers(1, 8))):
        block = None
        while block is None:
            try:
                kind = "conv" if number == 0 else str(generator.choice(names))
                block = _random_block(generator, notation, kind, channels, video, quantized, most_layers)
                Structure((block,), notation)
            except InputError:  # groups that do not divide, what has no name in the notation
                block = None
        blocks.append(block)
        channels = block.out_channels
    return Structure(tuple(blocks), notation)


def _random_block(generator, notation, kind, channels, video, quantized, most_layers):
    def pick(*values):
        return values[int(generator.integers(len(values)))]

    plain = kind == "conv"
    layers = pick(*range(1, most_layers + 1))
    convs = BLOCK_TYPES[notation, kind].num_convs(layers)
    bits = quantized and notation == "tinynas"
    return SuperBlock(
        block_type=kind,
        kernel=pick(1, 3, 5, 7) if plain else pick(3, 5, 7),
        in_channels=channels,
        out_channels=16 if channels == 3 else pick(channels, 8, 16, 24, 12, 40),
        stride=pick(1, 1, 2),
        layers=1 if plain and notation == "tinynas" else layers,
        bottleneck=None if plain else pick(8, 16, 24, 56),
        expansion=pick(1, 2, 4, 6) if kind == "idw" else None,
        temporal_kernel=pick(1, 3) if video else None,
        groups=pick(1, 1, 4, 8) if notation == "tinynas" and channels > 3 else 1,
        weight_bits=tuple(pick(3, 4, 5, 6) for _ in range(convs)) if bits else (),
        activation_bits=tuple(pick(3, 4, 5, 6) for _ in range(convs)) if bits else (),
    )
