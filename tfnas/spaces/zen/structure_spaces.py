"""The structure spaces by name, and a user's own from a YAML file, as families of networks.

family = structure_space("tinynas-k1kxk1", max_layers=49)
child = family.mutate(family.initial, numpy.random.default_rng(0))
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_yaml, short
from tfnas.spaces.mbconv.space_file import built_in_spaces, installed_space
from tfnas.spaces.zen.structure_rules import PACKAGE, Variant, structure_rules
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily
from tfnas.spaces.zen.zoo_networks import names, zoo_architecture


def structure_space_names() -> list[str]:
    """Names of the built-in structure spaces."""
    return built_in_spaces(PACKAGE)


def is_structure_space(name_or_path: str, seen: tuple[str, ...] = ()) -> bool:
    """Whether it is the name of a structure space, or a file that has the notation of one or extends one.

    The name of a space of an installed package stands for its file.
    """
    if name_or_path in structure_space_names():
        return True
    name_or_path = installed_space(name_or_path) or name_or_path
    if not os.path.isfile(name_or_path) or name_or_path in seen:  # noqa: PTH113 - a name may be too long for a path
        return False
    try:
        document = load_yaml(Path(name_or_path).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # read again where it is opened, and refused there
        return False
    if not isinstance(document, dict):
        return False
    parent = document.get("extends")
    return "notation" in document or (isinstance(parent, str) and is_structure_space(parent, (*seen, name_or_path)))


def structure_space(
    name_or_path: str,
    *,
    variant: Variant = "default",
    initial: StructureArchitecture | None = None,
    max_layers: int | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ZenFamily:
    """The family of a space: its rules, and the structure that a search begins at, the space's own unless given.

    Variant `program` draws as the released program does, its accidents included. `max_layers` is the limit on layers
    that TinyNAS's rules look at. `image_size` and `num_classes` replace those of the initial structure, `overrides` any
    fields of the space, as they stand in YAML.

    Raises InputError naming the file and the field that is wrong, or the block that has no place in the space.
    """
    rules = structure_rules(str(name_or_path), variant, overrides)
    if max_layers is not None and max_layers < 1:
        raise InputError(f"max_layers must be 1 or more, got {short(max_layers)}")
    if initial is None:
        try:
            known = rules.initial in names()
            initial = zoo_architecture(rules.initial) if known else StructureArchitecture.parse(rules.initial)
        except InputError as error:
            raise InputError(f"space {rules.name}: initial: {error}") from error
    initial = initial.adapted(
        image_size=initial.image_size if image_size is None else image_size,
        num_classes=initial.num_classes if num_classes is None else num_classes,
    )
    rules.check_blocks(initial.structure.blocks, initial.structure.notation)
    return ZenFamily(initial, rules, max_layers)
