"""The networks of the zoo: what is known of each, and building them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tfnas.core.errors import InputError
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.zen_family import IMAGE_SIZE, NUM_CLASSES, StructureArchitecture

if TYPE_CHECKING:
    from tfnas.spaces.zen.structure_network import StructureNetwork


@dataclass(frozen=True)
class Facts:
    """A network of the zoo; see `facts`."""

    name: str
    program: str
    """The program that found it."""
    source: str
    """Where structure and figures were published."""
    structure: Structure
    resolution: int | None
    """Pixels a side at which its program counts it."""
    frames: int
    """Frames of a video; 1 of images."""
    squeeze_excite: bool
    """Whether the published accuracy is that of the network with squeeze-and-excite added (`use_se`)."""
    published: Mapping[str, float]
    """Published figures: accuracies in percent, params_m and macs_m in millions, times in milliseconds; empty where
    there are none, as for the structures that searches begin at (`init...`)."""
    note: str | None
    """What one must know to compare the figures."""


def names() -> tuple[str, ...]:
    """The names that `build` and `facts` take.

    They also take `zennet_cifar10_...` and `zennet_cifar100_...` for `zennet_cifar_...`, and `..._SE_res224` for
    `..._res224`, as the published weights are called.
    """
    return tuple(_catalogue()["networks"])


@cache
def facts(name: str) -> Facts:
    """What is known of a network. Raises InputError with the names that are near where there is none of this name."""
    catalogue, plain = _catalogue(), plain_name(name)
    entry = catalogue["networks"][plain]
    program = catalogue["programs"][entry["program"]]
    config = f" ({entry['config']})" if "config" in entry else ""
    written = entry["structure"]
    return Facts(
        name=plain,
        program=program["name"],
        source=program["source"] + config,
        structure=Structure.parse(written) if isinstance(written, str) else Structure.from_tinynas(written),
        resolution=entry["resolution"],
        frames=entry.get("frames", 1),
        squeeze_excite=entry.get("squeeze_excite", False),
        published=MappingProxyType(entry["published"]),
        note=entry.get("note"),
    )


def plain_name(name: str) -> str:
    """The name in `names` that a name stands for. Raises InputError where there is none."""
    known = names()
    plain = re.sub(r"^zennet_cifar100?_", "zennet_cifar_", name)
    plain = re.sub(r"_SE_(res\d+)$", r"_\1", plain) if plain.startswith("zennet_imagenet1k") else plain
    if plain not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"; near are {', '.join(near)}" if near else ""
        raise InputError(f"the zoo has no network {name!r}: tfnas.zoo.names() lists its {len(known)}{hint}")
    return plain


@cache
def _catalogue() -> dict[str, Any]:
    document = json.loads((resources.files("tfnas.spaces.zen") / "zoo.json").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def zoo_architecture(name: str) -> StructureArchitecture:
    """A network of the zoo at the size of its images, with the classes and squeeze-and-excite that its name says.

    Names that say no classes have 1000. Raises InputError for an unknown name.
    """
    known = facts(name)
    classes = _classes(name) or NUM_CLASSES
    return StructureArchitecture(known.structure, known.resolution or IMAGE_SIZE, classes, "_SE_" in name, known.frames)


def _classes(name: str) -> int | None:
    return next((classes for start, classes in _CLASSES.items() if name.startswith(start)), None)


_CLASSES = {"zennet_cifar10_": 10, "zennet_cifar100_": 100, "zennet_imagenet1k_": 1000}


def build(name: str, *, num_classes: int | None = None, use_se: bool | None = None) -> StructureNetwork:
    """A network of the zoo with PyTorch's initial weights; `load_published` gives it those of its program.

    What is not given is as the name says: `zennet_cifar10_...` has 10 classes, `zennet_cifar100_...` 100 and
    `zennet_imagenet1k_...` 1000, and other names none, which makes the last feature map the output; `..._SE_res224` has
    squeeze-and-excite, and other names have not.

    Raises InputError for an unknown name, and for `use_se` where the structure's notation has no such choice.
    """
    from tfnas.spaces.zen.structure_network import StructureNetwork

    structure = facts(name).structure
    if num_classes is None:
        num_classes = _classes(name)
    return StructureNetwork(structure, num_classes=num_classes, use_se="_SE_" in name if use_se is None else use_se)
