"""Names of super-blocks in both notations: those of the programs, and of types that are registered from outside.

    register_block("SuperResFused", BlockType(("full", "point"), shortcut="identity", activation="silu"))

A registered type has one name: it is the class in notation tinynas, and in zennas its kernel follows, SuperResFusedK3.
A package registers one under the entry point group `tfnas.blocks`, which command lines see too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from importlib.metadata import entry_points
from typing import Any, get_args

from tfnas.core.entry_points import register_entry_point
from tfnas.core.errors import InputError
from tfnas.spaces.zen.super_block import BLOCK_TYPES, BlockType, Notation

ENTRY_POINTS = "tfnas.blocks"
CLASSES = {
    "ConvKXBNRELU": "conv",
    "Conv3DKXBNRELU": "conv",
    "SuperResK1KXK1": "k1kxk1",
    "SuperResK1KX": "k1kx",
    "SuperResKXKX": "kxkx",
    "SuperResK1DWK1": "k1dwk1",
    "SuperQuantResK1DWK1": "k1dwk1",
    "SuperRes3DK1DWK1": "k1dwk1",
    "SuperResK1DWSEK1": "k1dwsek1",
    "SuperResConvK1KXK1": "k1kxk1",
    "SuperResConvK1KX": "k1kx",
    "SuperResConvKXKX": "kxkx",
}
"""Block types by the classes of TinyNAS."""
_NAMES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("conv", re.compile(r"SuperConvK(?P<kernel>[1357])BNRELU")),
    ("kxkx", re.compile(r"SuperResK(?P<kernel>[357])K(?P=kernel)")),
    ("k1kxk1", re.compile(r"SuperResK1K(?P<kernel>[357])K1")),
    ("idw", re.compile(r"SuperResIDWE(?P<expansion>[1246])K(?P<kernel>[357])")),
)
"""Block types by the names of ZenNAS."""
_REGISTERED_NAME = re.compile(r"(?P<name>Super\w+)K(?P<kernel>\d{1,9})", re.ASCII)
_OWN_NAME = re.compile(r"Super[A-Za-z]\w{0,58}", re.ASCII)
_KNOWN = "SuperConvK3BNRELU, SuperResK3K3, SuperResK1K3K1, SuperResIDWE6K3 and the like"
HINT = "a type of your own must be registered (tfnas.register_block) or its package installed"
"""What to do about a type that is unknown."""


def register_block(name: str, block_type: BlockType) -> None:
    """Add a type of super-block to both notations; structures and their spaces know it from then on.

    `name` begins with Super. As the programs' classes, one with 3D in it is of videos, and one with Quant needs bits.
    Raises InputError for a name that cannot be, and ValueError where another type has it.
    """
    if _OWN_NAME.fullmatch(name) is None:
        raise InputError(f"the name of a block type must begin with Super, such as SuperResFused, got {name!r:.80}")
    if name in CLASSES or any(pattern.fullmatch(f"{name}K{size}") for _, pattern in _NAMES for size in (1, 3, 5, 7)):
        raise ValueError(f"there is a block type {name!r} already")
    if len(block_type.layers) < 2:
        raise InputError(f"block type {name}: layers must be two convolutions or more, got {len(block_type.layers)}")
    if block_type.expands_output or not block_type.repeats:
        raise InputError(f"block type {name}: expands_output and repeats=False are for types of the programs alone")
    for notation in get_args(Notation):
        if BLOCK_TYPES.setdefault((notation, name), block_type) != block_type:
            raise ValueError(f"there is a block type {name!r} already")


def registered_type(name: str) -> BlockType | None:
    """The type that has been registered, or that an installed package has, under a name.

    Raises InputError naming the package where its entry point cannot be loaded.
    """
    if _OWN_NAME.fullmatch(name) is None:
        return None
    if ("tinynas", name) not in BLOCK_TYPES:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            register_entry_point(entry, BlockType, partial(register_block, name))
    return BLOCK_TYPES.get(("tinynas", name))


def registered_types(names: Iterable[str]) -> dict[str, BlockType]:
    """Those of these block types that have been registered."""
    return {name: BLOCK_TYPES["tinynas", name] for name in names if _OWN_NAME.fullmatch(name)}


def named_block_type(name: str) -> tuple[str, dict[str, int]]:
    """The block type that a name of notation zennas stands for, with the numbers in it. Raises InputError."""
    for block_type, pattern in _NAMES:
        found = pattern.fullmatch(name)
        if found is not None:
            return block_type, {key: int(value) for key, value in found.groupdict().items()}
    found = _REGISTERED_NAME.fullmatch(name)
    if found is not None and registered_type(found["name"]) is not None:
        return found["name"], {"kernel": int(found["kernel"])}
    known = [_KNOWN, *(f"{registered}K3" for registered in _registered_names())]
    raise InputError(f"no super-block has this name; known are {', '.join(known)}; {HINT}")


def class_block_type(name: Any) -> str:
    """The block type of a class of notation tinynas. Raises InputError where there is none of that name."""
    if isinstance(name, str) and name in CLASSES:
        return CLASSES[name]
    if isinstance(name, str) and registered_type(name) is not None:
        return name
    raise InputError(f"no class {name!r:.80}; known are {', '.join([*CLASSES, *_registered_names()])}; {HINT}")


def _registered_names() -> list[str]:
    """Names of registered types, those of installed packages included."""
    known = [name for notation, name in BLOCK_TYPES if notation == "tinynas"]
    return sorted({*registered_types(known), *(entry.name for entry in entry_points(group=ENTRY_POINTS))})
