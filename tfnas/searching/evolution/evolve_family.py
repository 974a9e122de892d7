"""What an evolutionary search draws from: a family of networks and the one to start from, by the name of a space."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tfnas.core.errors import InputError, did_you_mean
from tfnas.core.family import Family
from tfnas.core.space import SearchSpace
from tfnas.runs.architecture_source import arch_source, path_source
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.spaces.families import families, find_family
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.mbconv.space_file import installed_spaces, space_names
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.zen.structure_spaces import is_structure_space, structure_space, structure_space_names
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily

Mutate = Callable[[Any, np.random.Generator], Any]

_CLASSES = 1000
"""Of networks of MBConv blocks, whose spaces say none."""


@dataclass(frozen=True)
class SearchedFamily:
    """A family and the network to start from, which it can mutate."""

    family: Family
    initial: Any

    @property
    def fingerprint(self) -> str:
        """What it draws by: equal where the same networks are drawn from the same."""
        family = self.family
        if isinstance(family, MBConvFamily):
            return family.space.fingerprint
        rules = (family.mutation.rules, family.max_layers) if isinstance(family, ZenFamily) else family.name
        return hashlib.sha256(repr(rules).encode()).hexdigest()[:16]

    @property
    def mutate(self) -> Mutate:
        """Draws a network from a member of the population."""
        return self.family.mutate

    @property
    def mutate_little(self) -> Mutate:
        """Draws a network from the one that the search starts from: of a structure one block or field is changed."""
        family = self.family
        return partial(family.mutate, changes=1) if isinstance(family, ZenFamily) else family.mutate


def open_family(config: EvolveConfig) -> SearchedFamily:
    """The family and the network to start from, for the images and classes wanted.

    Raises InputError for a space that there is not, and for an --init that is not of it.
    """
    named = None if config.init is None else _named(config.init)
    if is_structure_space(config.space):
        return _of_structures(named, config)
    if config.space_variant != "default":
        raise InputError(
            f"--space_variant {config.space_variant} is for the spaces {', '.join(structure_space_names())}"
        )
    if config.space_rules is not None:
        raise InputError(f"--space_rules is for the spaces {', '.join(structure_space_names())}")
    if config.space in _families_without_spaces():
        other = find_family(config.space)
        return _of_family(other, named or other.sample(np.random.default_rng(config.seed)), config)
    space = _mbconv_space(config)
    classes = config.num_classes or (_CLASSES if named is None else named.num_classes)
    return _of_family(MBConvFamily(space, classes), named or _smallest(space, classes), config)


def _of_structures(named: Any, config: EvolveConfig) -> SearchedFamily:
    _check_family(named, "zen", config)
    opened = partial(
        structure_space,
        config.space,
        variant=config.space_variant,
        max_layers=config.max_layers,
        image_size=config.image_size,
        num_classes=config.num_classes,
        overrides=config.overridden_rules,
    )
    family = opened()
    if named is not None:
        try:
            family = opened(initial=named)
        except InputError as error:
            raise InputError(f"--init: {error}") from error
    return SearchedFamily(family, family.initial)


def _of_family(family: Family, initial: Any, config: EvolveConfig) -> SearchedFamily:
    _check_family(initial, family.name, config)
    size, classes = config.image_size or initial.image_size, config.num_classes or initial.num_classes
    initial = initial.adapted(image_size=size, num_classes=classes)
    try:
        family.mutate(initial, np.random.default_rng(config.seed))
    except InputError as error:
        raise InputError(f"--init is not of --space {config.space}: {error}") from error
    return SearchedFamily(family, initial)


def _check_family(initial: Any, name: str, config: EvolveConfig) -> None:
    if initial is not None and initial.family != name:
        raise InputError(
            f"--init names a network of family {initial.family}, but --space {config.space} is of family {name}"
        )


def _named(given: str) -> Any:
    """The network of --init. Raises InputError that begins with the flag."""
    try:
        found = path_source(given) if os.path.exists(given) else arch_source(given)  # noqa: PTH110 - may be a long text
    except InputError as error:
        message = str(error)
        raise InputError(f"--init: {message.removeprefix('--arch: ')}") from error
    return found.architecture


def _families_without_spaces() -> list[str]:
    """Families that are searched by their own name; those of structures and MBConv blocks have named spaces."""
    return [name for name in families() if name not in (ZenFamily.name, MBConvFamily.name)]


def _mbconv_space(config: EvolveConfig) -> SearchSpace:
    own = (*structure_space_names(), *space_names(), *installed_spaces())
    names = (*own, *_families_without_spaces())
    if config.space not in names and not os.path.isfile(config.space):  # noqa: PTH113
        hint = did_you_mean(config.space, names)
        raise InputError(f"--space: no space {config.space!r}: give one of {', '.join(names)} or a YAML file{hint}")
    return load_space(config.space, image_size=config.image_size)


def _smallest(space: SearchSpace, num_classes: int) -> Any:
    """The narrowest network of a space: the fewest blocks, of the operation with the least width and kernel."""
    operations, widths = [], []
    for place in space.blocks:
        least = min(
            range(len(space.operations)),
            key=lambda number: (
                space.width_range(place, space.operations[number])[0],
                space.operations[number].kernel_size,
                space.operations[number].se,
            ),
        )
        operations.append(least)
        widths.append(space.width_range(place, space.operations[least])[0])
    return space.architecture(operations, [min(choices) for choices in space.depth_choices], widths, num_classes)


def frames_of(architecture: Any) -> int:
    """Frames of a video that the network takes; 1 for images."""
    return architecture.frames if isinstance(architecture, StructureArchitecture) else 1
