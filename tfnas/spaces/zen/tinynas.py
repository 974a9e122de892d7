"""Reading and writing TinyNAS structure files: Python literals, which are read without running anything.

    {'best_structures': [[block, block, ...], ...], 'space_arch': 'CnnNet'}       or one list of blocks

A block is a dict with `class`, `in`, `out`, `k`, and, where they apply, `s` (stride, 1 by default), `L` (layers), `btn`
(bottleneck), `g` (groups), `p` (padding, half the kernel), `act`, `kt` (frames that a kernel spans), `nbitsA` and
`nbitsW` (bits of every convolution's input and weight) and `inner_class`, which repeats the class.

Its first version, whose files DAMO-YOLO ships, calls the classes SuperResConv..., and its files name bits everywhere,
not always for each convolution. What is written has the names of the present one.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.core.errors import InputError
from tfnas.spaces.zen.block_names import CLASSES, class_block_type, registered_types
from tfnas.spaces.zen.super_block import BLOCK_TYPES, SuperBlock

_KEYS = {"class", "in", "out", "k", "s", "L", "btn", "g", "p", "act", "kt", "nbitsA", "nbitsW", "inner_class"}
_ACTIVATIONS = {"relu": "relu", "silu": "silu", "swish": "silu"}


def read_text(text: str, index: int | None = None) -> tuple[SuperBlock, ...]:
    """The blocks of a file's text; `index` says of which of several structures.

    Raises InputError with the place and the reason.
    """
    space = text[: len(text) - len(text.lstrip())]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd spellings of numbers and strings: the reader decides
            tree = ast.parse("\n" * space.count("\n") + text.strip(), mode="eval")
            _check_named_once(tree, space)
            document = ast.literal_eval(tree)
    except SyntaxError as error:
        raise InputError(f"{_place(space, error.lineno or 0, error.offset or 0)}: {error.msg}") from error
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"it may contain only lists, dicts, text and numbers: {error}") from error
    except (MemoryError, RecursionError) as error:
        raise InputError("it is nested too deeply to be a structure") from error
    return read_document(document, index)


def _place(space: str, line: int, character: int) -> str:
    """Where in a text of which the parser has not seen the `space` at its beginning, but for its lines."""
    indent = len(space) - space.rfind("\n") - 1 if line == space.count("\n") + 1 else 0
    return f"line {line}, character {character + indent}"


def _check_named_once(tree: ast.AST, space: str) -> None:
    """Refuse dicts that say something twice, of which Python takes the last."""
    for node in ast.walk(tree):
        names: set[Any] = set()
        for key in node.keys if isinstance(node, ast.Dict) else []:
            if isinstance(key, ast.Constant):
                if key.value in names:
                    place = _place(space, key.lineno, key.col_offset + 1)
                    raise InputError(f"{place}: duplicate key {key.value!r:.60} in one dict")
                names.add(key.value)


def read_document(document: Any, index: int | None = None) -> tuple[SuperBlock, ...]:
    """The blocks of what a file holds; `index` says of which of several structures.

    Raises InputError with the place and the reason.
    """
    document = _one_structure(document, index)
    blocks = []
    for number, fields in enumerate(document, 1):
        try:
            blocks.append(_block(fields))
        except InputError as error:
            name = fields.get("class") if isinstance(fields, Mapping) else None
            known = (
                f" ({name})" if isinstance(name, str) and (name in CLASSES or ("tinynas", name) in BLOCK_TYPES) else ""
            )
            raise InputError(f"block {number} of {len(document)}{known}: {error}") from error
    return tuple(blocks)


def _one_structure(document: Any, index: int | None) -> Sequence[Any]:
    """The list of blocks that is meant. Empty lists are no structures."""
    if isinstance(document, Mapping):
        if "best_structures" not in document:
            raise InputError(f"it has no 'best_structures', only {', '.join(map(repr, document)) or 'nothing'}")
        document = document["best_structures"]
    if not isinstance(document, list | tuple):
        raise InputError(f"expected a list of blocks, got a {type(document).__name__}")
    if not any(isinstance(entry, list | tuple) for entry in document):
        document = [document]
    for number, entry in enumerate(document):
        if not isinstance(entry, list | tuple):
            raise InputError(f"structure {number} (from 0): expected a list of blocks, got {entry!r:.60}")
    several = [number for number, entry in enumerate(document) if entry]
    if index is None and len(several) > 1:
        raise InputError(
            f"it contains {len(several)} structures, best first: select one with index={several[0]} to {several[-1]}, "
            f"as in Structure.parse(text, index={several[0]})"
        )
    if index is None:
        index = several[0] if several else 0
    if not 0 <= index < len(document):
        raise InputError(f"index is {index}, but it contains {len(document)} structures, which count from 0")
    return list(document[index])


def write_text(blocks: tuple[SuperBlock, ...]) -> str:
    """One line that TinyNAS's own programs read too."""
    space = "CnnNet" if blocks[0].temporal_kernel is None else "Cnn3DNet"
    return str({"best_structures": [[_fields(block) for block in blocks]], "space_arch": space})


def _block(fields: Any) -> SuperBlock:
    if not isinstance(fields, Mapping):
        raise InputError(f"expected a dict, got {fields!r:.60}")
    name: Any = fields.get("class")
    block_type = class_block_type(name)
    unknown = sorted(str(key) for key in fields if key not in _KEYS)
    if unknown:
        raise InputError(f"{name} has no field {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    is_video = "3D" in name
    kernel = _whole(fields, "k")
    _check_redundant(fields, kernel)
    block = SuperBlock(
        block_type=block_type,
        kernel=kernel,
        in_channels=_whole(fields, "in"),
        out_channels=_whole(fields, "out"),
        stride=_whole(fields, "s", 1),
        layers=1 if block_type == "conv" else _whole(fields, "L"),
        bottleneck=None if block_type == "conv" else _whole(fields, "btn"),
        temporal_kernel=_whole(fields, "kt") if is_video else None,
        groups=_whole(fields, "g", 1),
        activation=_activation(fields),
        weight_bits=_bits(fields, "nbitsW"),
        activation_bits=_bits(fields, "nbitsA"),
    )
    if "Quant" in name:
        _check_bits_of_all(block, name)
    return block


def _check_bits_of_all(block: SuperBlock, name: str) -> None:
    convs, numbers = _num_convs(block), (len(block.activation_bits), len(block.weight_bits))
    if not block.quantized:
        raise InputError(f"{name} needs nbitsA and nbitsW")
    if not block.has_bits_for(convs):
        raise InputError(
            f"nbitsA and nbitsW need {convs} numbers each, one per convolution, got {numbers[0]} and {numbers[1]}"
        )


def _num_convs(block: SuperBlock) -> int:
    return BLOCK_TYPES["tinynas", block.block_type].num_convs(block.layers)


def _check_redundant(fields: Mapping[str, Any], kernel: int) -> None:
    """Refuse what says something else than the rest of the block does."""
    name = fields["class"]
    if "inner_class" in fields and fields["inner_class"] != _inner_class(name):
        raise InputError(f"inner_class of {name} is {_inner_class(name)}, got {fields['inner_class']!r}")
    if "p" in fields and fields["p"] != (kernel - 1) // 2:
        raise InputError(f"p (padding) must be {(kernel - 1) // 2}, half the kernel, got {fields['p']!r}")
    if "kt" in fields and "3D" not in name:
        raise InputError(f"{name} is for images and has no kt")


def _inner_class(name: str) -> str | None:
    return name.removeprefix("Super").replace("QuantRes", "Res") if name.startswith("Super") else None


def _whole(fields: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = fields.get(key, default)
    if key not in fields and default is None:
        raise InputError(f"{fields['class']} needs {key!r}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{key} must be a whole number, got {value!r}")
    return value


def _activation(fields: Mapping[str, Any]) -> str | None:
    name = fields.get("act")
    if name is not None and (not isinstance(name, str) or name not in _ACTIVATIONS):
        raise InputError(f"act must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return None if name is None else _ACTIVATIONS[name]


def _bits(fields: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = fields.get(key, [])
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _fields(block: SuperBlock) -> dict[str, Any]:
    """A block's dict."""
    name = block_name(block)
    fields: dict[str, Any] = {"class": name, "in": block.in_channels, "out": block.out_channels, "s": block.stride}
    fields["k"] = block.kernel
    if block.temporal_kernel is not None:
        fields["kt"] = block.temporal_kernel
    if block.block_type != "conv":
        fields |= {"L": block.layers, "btn": block.bottleneck, "inner_class": _inner_class(name)}
    if block.groups != 1:
        fields["g"] = block.groups
    if block.activation is not None:
        fields["act"] = block.activation
    for key, bits in (("nbitsA", block.activation_bits), ("nbitsW", block.weight_bits)):
        if bits:
            fields[key] = bits[0] if block.block_type == "conv" and len(bits) == 1 else list(bits)
    return fields


def block_name(block: SuperBlock) -> str:
    """The class of a block, in the present version. Raises InputError where no class is like it."""
    if block.stride > 2:
        raise InputError(f"stride must be 1 or 2, got {block.stride}")
    is_video = block.temporal_kernel is not None
    names = [
        name
        for name, block_type in (*CLASSES.items(), *((name, name) for name in registered_types([block.block_type])))
        if block_type == block.block_type and ("3D" in name) == is_video
    ]
    quantized = [name for name in names if "Quant" in name and block.has_bits_for(_num_convs(block))]
    if not names:
        raise InputError(f"no class of TinyNAS is a {block.block_type} of this kind")
    return (quantized or names)[0]
