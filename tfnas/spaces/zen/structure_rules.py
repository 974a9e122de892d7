"""What a mutation may do to a structure, as data: the rules of a structure space, read from YAML.

`tfnas.spaces.zen.structure_mutation` draws by them. The built-in spaces are the YAML files beside this module, those of
ZenNAS (`zen-...`) and of TinyNAS (`tinynas-...`). Where a released program leaves structures out of reach by accident,
its `program` entry has the program's own rule, and the rest of the file the sound one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, get_args

from tfnas.core.errors import InputError, did_you_mean
from tfnas.core.json_yaml import short
from tfnas.core.mbconv_blocks import MOST_CHANNELS, MOST_KERNEL_SIZE
from tfnas.core.units import PLAIN
from tfnas.spaces.mbconv.space_file import built_in_spaces, expect_type, known_fields, read_space_document
from tfnas.spaces.zen.block_names import class_block_type, named_block_type
from tfnas.spaces.zen.super_block import BLOCK_TYPES, MOST_BITS, MOST_LAYERS, Notation, SuperBlock

Variant = Literal["default", "program"]
PACKAGE = "tfnas.spaces.zen"
_MOST_CHANGES = 1000
_OF_BLOCK_CHANGES = ("type_weights", "split_layers", "max_splits")
_OF_FIELD_CHANGES = (
    *("kernels", "map_per_kernel", "bottleneck_range", "bottleneck_ratios", "stem_channels", "block_channels"),
    *("lowers_next_bottleneck", "change_stem", "change_last", "monotone", "max_growth", "max_block_layers"),
    *("second_block_layers", "unshared_blocks", "bits", "bits_ratio"),
)


class ResidualType(NamedTuple):
    """A type of residual block: what a notation's name says. The kernel is None where the name does not say it."""

    block_type: str
    kernel: int | None = None
    expansion: int | None = None


@dataclass(frozen=True, kw_only=True)
class StructureRules:
    """The rules of a structure space. Widths are rounded to multiples of 8.

    Raises InputError naming the field that cannot be.
    """

    name: str
    notation: Notation
    initial: str
    """Where a search begins: a network of the zoo, or the text form of a structure."""
    change: Literal["block", "field"]
    """What is drawn at once: a whole `block` (type, widths and layers), or one `field` of a block."""
    types: tuple[tuple[str, ...], ...]
    """Residual blocks by their names in the notation, in families."""
    width_scales: tuple[float, ...]
    """Factors of widths; of a `block`, 1 means that a width may stay."""
    layer_steps: tuple[int, ...]
    """Changes of a block's number of layers, likewise with 0."""
    max_channels: int
    """Most channels of a block, and of a bottleneck that is scaled."""
    changes: int = 2
    """Blocks, or fields one after the other, that a mutation changes."""
    always_different: bool = True
    """Whether what changes is drawn among what differs; else the same may be drawn again."""
    type_weights: Literal["uniform", "zennas"] = "uniform"
    """How often a type is drawn; `zennas`: the j-th of the n types of a family (from 0) n - max(0, j - 1) times."""
    fixed_pointwise: bool = False
    """Whether 1x1 convolutions outside residual blocks keep their width."""
    split_layers: int | None = None
    """A residual block of so many layers or more becomes two, the first of half as many (rounded down)."""
    max_splits: int | None = None
    """How often a block is split at most after a mutation; None: until none is that deep."""
    kernels: tuple[tuple[int | None, int], ...] = ()
    """Kernels of residual blocks, as frames (None: images) and pixels; empty where they stay or the type says them."""
    map_per_kernel: float | None = None
    """How many times its kernel the map must measure that a block receives."""
    bottleneck_range: tuple[float, float] | None = None
    """Least and largest bottleneck over output; bottlenecks are scaled as widths are."""
    bottleneck_ratios: tuple[float, ...] = ()
    """Bottlenecks over output to draw from; a new output keeps the ratio."""
    stem_channels: tuple[int, int] = (8, MOST_CHANNELS)
    """Least and most channels of the first block."""
    block_channels: tuple[tuple[int, int] | None, ...] = ()
    """Least and most channels of each block, from the first on; None for any."""
    lowers_next_bottleneck: bool = False
    """Whether the next block's bottleneck is at most the new output."""
    change_stem: bool = True
    change_last: bool = True
    """Whether the first and the last block may change."""
    monotone: bool = False
    """Whether a block is at least as wide as the one before and at most as wide as the next."""
    max_growth: float | None = None
    """How many times as wide as the one before a block may be."""
    max_block_layers: int = 32
    """Most layers of a block."""
    second_block_layers: int | None = None
    """Most layers of the second block."""
    unshared_blocks: int | None = None
    """Under a limit on layers, a block may have an even share of it: over all blocks but so many."""
    bits: tuple[int, ...] = ()
    """Bits of weights and inputs, in steps of which a unit's change; none where they stay."""
    bits_ratio: float = 0.1
    """Probability that a unit's bits change when those of its block are drawn."""
    sampling_mutations: int = 8
    """Mutations per block that make a random structure of the initial one."""

    def __post_init__(self) -> None:
        for name in ("types", "width_scales", "layer_steps"):
            if not getattr(self, name):
                raise InputError(f"{name} must not be empty")
        try:
            _ = self.residual_types
        except InputError as error:
            raise InputError(f"types: {error}") from error
        if self.bottleneck_range is not None and self.bottleneck_ratios:
            raise InputError("bottleneck_range and bottleneck_ratios exclude each other: give one")
        if self.bottleneck_range is None and not self.bottleneck_ratios and self.change == "field":
            raise InputError("bottleneck_range or bottleneck_ratios must be given for changes of one field")
        if self.change == "block" and self.notation != "zennas":
            raise InputError("change: block is for notation zennas, whose names say kernel and expansion; give field")
        if self.notation == "zennas" and self.kernels:
            raise InputError("kernels is for notation tinynas: in zennas the types say them")
        if len({frames is None for frames, _ in self.kernels}) > 1:
            raise InputError("kernels must be all of images (3) or all of videos ([1, 3])")

    @cached_property
    def residual_types(self) -> tuple[ResidualType, ...]:
        """Every residual type, as often as it weighs."""
        return tuple(
            residual_type(self.notation, name)
            for family in self.types
            for place, name in enumerate(family)
            for _ in range(len(family) - max(0, place - 1) if self.type_weights == "zennas" else 1)
        )

    @property
    def is_video(self) -> bool:
        """Whether its structures take videos: their kernels then span time."""
        return any(frames is not None for frames, _ in self.kernels)

    @property
    def block_types(self) -> frozenset[str]:
        """The block types of its residual blocks; see `BLOCK_TYPES`."""
        return frozenset(known.block_type for known in self.residual_types)

    def check_blocks(self, blocks: Sequence[SuperBlock], notation: Notation) -> None:
        """Raise InputError, naming the block, where a structure has no place in the space."""
        if notation != self.notation:
            raise InputError(f"the structure is of notation {notation}, those of space {self.name} of {self.notation}")
        if self.change == "field" and not self.change_last and len(blocks) < 2:
            raise InputError(f"a structure of one block has none that may change in space {self.name}")
        for number, block in enumerate(blocks, 1):
            place = f"block {number} of {len(blocks)} ({block.block_type})"
            if block.block_type != PLAIN and block.block_type not in self.block_types:
                known = ", ".join(name for family in self.types for name in family)
                raise InputError(f"{place} has no place in space {self.name}, whose blocks are {known}")
            convs = BLOCK_TYPES[notation, block.block_type].num_convs(block.layers)
            if self.bits and not block.has_bits_for(convs):
                raise InputError(f"{place} needs bits of {convs} weights and inputs in space {self.name}")


def rules_of_blocks(blocks: Sequence[SuperBlock], notation: Notation) -> StructureRules:
    """The rules of the built-in space that blocks belong to. Raises InputError where they belong to none."""
    types = {block.block_type for block in blocks} - {PLAIN}
    quantized, is_video = any(block.quantized for block in blocks), blocks[0].temporal_kernel is not None
    for name in built_in_spaces(PACKAGE):
        rules = _built_in_rules(name)
        fits = types <= rules.block_types and rules.notation == notation
        if fits and quantized == bool(rules.bits) and is_video == rules.is_video:
            return rules
    raise InputError(f"no structure space has blocks of the types {', '.join(sorted(types))} together: give the space")


@cache
def _built_in_rules(name: str) -> StructureRules:
    return structure_rules(name)


@cache
def residual_type(notation: Notation, name: str) -> ResidualType:
    """The residual type of a name in a notation. Raises InputError where there is none."""
    if notation == "zennas":
        block_type, numbers = named_block_type(name)
        found = ResidualType(block_type, numbers["kernel"], numbers.get("expansion"))
    else:
        found = ResidualType(class_block_type(name))
    if found.block_type == "conv":
        raise InputError(f"{name} is no residual block")
    return found


# ---- reading --------------------------------------------------------------------------------------------------------


def structure_rules(
    name_or_path: str, variant: Variant = "default", overrides: Mapping[str, Any] | None = None
) -> StructureRules:
    """The rules of a built-in space or of a YAML file; `overrides` are fields, as in YAML, that replace the file's.

    Raises InputError naming the file and the field that is wrong, and why.
    """
    if variant not in get_args(Variant):
        raise InputError(f"variant must be default or program, got {short(variant)}")
    document, where = read_space_document(name_or_path, PACKAGE, completed="program")
    try:
        return _read_rules(document, variant, overrides or {})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _read_rules(document: Mapping[str, Any], variant: Variant, overrides: Mapping[str, Any]) -> StructureRules:
    fields = dict(document)
    program = expect_type(fields.pop("program", {}), dict, "program")
    for name, value in known_fields(program, StructureRules, "program.", partial=True).items():
        _READERS[name](value, f"program.{name}")
    if variant == "program" and not program:
        raise InputError("it has no entry `program`: there is no variant program of it")
    fields |= program if variant == "program" else {}
    fields = known_fields({**fields, **overrides}, StructureRules, "")
    for name, value in fields.items():
        fields[name] = _READERS[name](value, name)
    for change, names in (("block", _OF_BLOCK_CHANGES), ("field", _OF_FIELD_CHANGES)):
        for name in names if fields["change"] != change else ():
            if name in fields:
                raise InputError(f"{name} has a meaning with change: {change} only, and change is {fields['change']}")
    return StructureRules(**fields)


def _text(value: object, where: str) -> str:
    found: str = expect_type(value, str, where)
    return found


def _flag(value: object, where: str) -> bool:
    found: bool = expect_type(value, bool, where)
    return found


def _word(*words: str) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        if value not in words:
            raise InputError(
                f"{where} must be {' or '.join(words)}, got {short(value)}{did_you_mean(str(value), words)}"
            )
        return str(value)

    return read


def _whole(least: int, most: int) -> Callable[[object, str], int]:
    def read(value: object, where: str) -> int:
        number: int = expect_type(value, int, where)
        if not least <= number <= most:
            raise InputError(f"{where} must be {least} to {most}, got {short(number)}")
        return number

    return read


def _ratio(value: object, where: str) -> float:
    """A positive number, also written as a fraction: 2/3."""
    try:
        number = float(
            Fraction(value) if isinstance(value, str) and len(value) < 40 else expect_type(value, float, where)
        )
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{where} must be a number such as 0.5 or 2/3, got {short(value)}") from error
    if not 0 < number <= MOST_CHANNELS:
        raise InputError(f"{where} must be above 0 and at most {MOST_CHANNELS}, got {short(value)}")
    return number


def _list(read: Callable[[object, str], Any], length: int | None = None) -> Callable[[object, str], tuple[Any, ...]]:
    def read_list(value: object, where: str) -> tuple[Any, ...]:
        entries: Sequence[object] = expect_type(value, list, where)
        if length is not None and len(entries) != length:
            raise InputError(f"{where} must be {length} numbers, got {len(entries)}")
        return tuple(read(entry, f"{where}[{index}]") for index, entry in enumerate(entries))

    return read_list


def _range(read: Callable[[object, str], Any]) -> Callable[[object, str], tuple[Any, Any]]:
    def read_range(value: object, where: str) -> tuple[Any, Any]:
        low, high = _list(read, 2)(value, where)
        if low > high:
            raise InputError(f"{where} must be the least and the largest, got {short(low)} and {short(high)}")
        return low, high

    return read_range


def _or_none(read: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    return lambda value, where: None if value is None else read(value, where)


def _kernel(value: object, where: str) -> tuple[int | None, int]:
    """Pixels, or for videos frames and pixels."""
    read = _whole(1, MOST_KERNEL_SIZE)
    frames, pixels = _list(read, 2)(value, where) if isinstance(value, list) else (None, read(value, where))
    if pixels % 2 == 0 or (frames or 1) % 2 == 0:
        raise InputError(f"{where} must be odd, got {short(value)}")
    return frames, pixels


def _channels(value: object, where: str) -> int:
    number = _whole(8, MOST_CHANNELS)(value, where)
    if number % 8:
        raise InputError(f"{where} must be a multiple of 8, got {number}")
    return number


_READERS: dict[str, Callable[[object, str], Any]] = {
    "name": _text,
    "notation": _word("zennas", "tinynas"),
    "initial": _text,
    "change": _word("block", "field"),
    "types": _list(_list(_text)),
    "width_scales": _list(_ratio),
    "layer_steps": _list(_whole(-MOST_LAYERS, MOST_LAYERS)),
    "max_channels": _channels,
    "changes": _whole(1, _MOST_CHANGES),
    "always_different": _flag,
    "type_weights": _word("uniform", "zennas"),
    "fixed_pointwise": _flag,
    "split_layers": _or_none(_whole(2, MOST_LAYERS)),
    "max_splits": _or_none(_whole(1, MOST_LAYERS)),
    "kernels": _list(_kernel),
    "map_per_kernel": _or_none(_ratio),
    "bottleneck_range": _or_none(_range(_ratio)),
    "bottleneck_ratios": _list(_ratio),
    "stem_channels": _range(_channels),
    "block_channels": _list(_or_none(_range(_channels))),
    "lowers_next_bottleneck": _flag,
    "change_stem": _flag,
    "change_last": _flag,
    "monotone": _flag,
    "max_growth": _or_none(_ratio),
    "max_block_layers": _whole(1, MOST_LAYERS),
    "second_block_layers": _or_none(_whole(1, MOST_LAYERS)),
    "unshared_blocks": _or_none(_whole(0, MOST_LAYERS)),
    "bits": _list(_whole(1, MOST_BITS)),
    "bits_ratio": _ratio,
    "sampling_mutations": _whole(1, _MOST_CHANGES),
}
assert set(_READERS) == {field.name for field in dataclasses.fields(StructureRules)}
