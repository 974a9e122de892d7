"""Reading and writing ZenNAS structure strings.

net    := block+                                              white space between blocks means nothing
block  := NAME ( [label |] int , int ... )                    the label means nothing
NAME      SuperConvK{1,3,5,7}BNRELU                           (in, out, stride, layers)
          SuperResK{3,5,7}K{the same}                         (in, out, stride, bottleneck, layers)
          SuperResK1K{3,5,7}K1                                (in, out, stride, bottleneck, layers)
          SuperResIDWE{1,2,4,6}K{3,5,7}                       (in, out, stride, bottleneck, layers)
          a registered type's, then K and the kernel          (in, out, stride, bottleneck, layers)
"""

from __future__ import annotations

import re

from tfnas.core.errors import InputError
from tfnas.spaces.zen.block_names import named_block_type, registered_types
from tfnas.spaces.zen.super_block import SuperBlock

_BLOCK = re.compile(r"(?P<name>[A-Za-z_]\w*)\((?P<inside>[^()]*)\)", re.ASCII)
_SPACE = re.compile(r"\s*")
_LONGEST_NUMBER = 9


def read_text(text: str) -> tuple[SuperBlock, ...]:
    """The blocks of a structure string, all of it. Raises InputError with the place and the reason."""
    blocks: list[SuperBlock] = []
    start = _after_space(text, 0)
    while start < len(text):
        found = _BLOCK.match(text, start)
        if found is None:
            rest = text[start : start + 40]
            where = _place(text, start)
            raise InputError(f"{where}: expected a block such as SuperResK3K3(8,16,1,8,1), got {rest!r}")
        try:
            blocks.append(_block(found["name"], found["inside"]))
        except InputError as error:
            raise InputError(f"{_place(text, start)}, block {len(blocks) + 1}: {found[0]!r}: {error}") from error
        start = _after_space(text, found.end())
    return tuple(blocks)


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    assert found is not None
    return found.end()


def _place(text: str, start: int) -> str:
    """Where in a text, counted from 1: the character, and of several lines the line too."""
    line, character = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    return f"line {line}, character {character}" if "\n" in text.strip() else f"character {character}"


def write_text(blocks: tuple[SuperBlock, ...]) -> str:
    """The structure string of blocks."""
    return "".join(_text(block) for block in blocks)


def _block(name: str, inside: str) -> SuperBlock:
    block_type, named = named_block_type(name)
    label, bar, numbers_text = inside.rpartition("|")
    if not label.isprintable():
        raise InputError(f"a label must be text on one line, got {label!r}")
    words = [word.strip() for word in numbers_text.split(",")]
    wanted = (
        ("in", "out", "stride", "layers") if block_type == "conv" else ("in", "out", "stride", "bottleneck", "layers")
    )
    for word in words:
        if not re.fullmatch(rf"\d{{1,{_LONGEST_NUMBER}}}", word, re.ASCII):
            raise InputError(f"expected whole numbers with commas between them, got {word!r}")
    if len(words) != len(wanted):
        raise InputError(f"expected {len(wanted)} numbers ({', '.join(wanted)}), got {len(words)}")
    numbers = dict(zip(wanted, map(int, words), strict=True))
    return SuperBlock(
        block_type=block_type,
        kernel=named["kernel"],
        in_channels=numbers["in"],
        out_channels=numbers["out"],
        stride=numbers["stride"],
        layers=numbers["layers"],
        bottleneck=numbers.get("bottleneck"),
        expansion=named.get("expansion"),
        label=label if bar else None,
    )


def block_name(block: SuperBlock) -> str:
    """The name of a block's kind. Raises InputError where no name says what the block is."""
    if block.temporal_kernel or block.quantized or block.activation_bits or block.groups != 1 or block.activation:
        raise InputError("notation zennas has neither time, bits, groups nor other activations")
    kernel = block.kernel
    names = {
        "conv": f"SuperConvK{kernel}BNRELU",
        "kxkx": f"SuperResK{kernel}K{kernel}",
        "k1kxk1": f"SuperResK1K{kernel}K1",
        "idw": f"SuperResIDWE{block.expansion}K{kernel}",
        **{name: f"{name}K{kernel}" for name in registered_types([block.block_type])},
    }
    named_block_type(names[block.block_type])
    return names[block.block_type]


def _text(block: SuperBlock) -> str:
    numbers = [block.in_channels, block.out_channels, block.stride]
    numbers += [] if block.bottleneck is None else [block.bottleneck]
    label = "" if block.label is None else f"{block.label}|"
    return f"{block_name(block)}({label}{','.join(map(str, [*numbers, block.layers]))})"
