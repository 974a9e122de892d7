"""The families of networks that there are, and what can be done with an architecture of any of them.

    architecture = parse_architecture("i3x32_n10:SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)")
    network = build_network(architecture)

A family from outside joins by `register_family`, or under the entry point group `tfnas.families`, which command lines
see too. Neither torch nor an outside package is imported before it is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfnas.core.architecture import JSON_FORMAT, JSON_VERSION, RUN_FILE, Architecture
from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json_file, short
from tfnas.core.units import CostPart, Counts, sum_counts

if TYPE_CHECKING:
    from torch import nn

    from tfnas.core.family import Family, NetworkArchitecture

ENTRY_POINTS = "tfnas.families"
_IMAGE_SIZE = 224
_LARGEST_TEXT = 1_000_000
_OF_CLASSES = re.compile(r"""['"]class['"]\s*:""")
"""What every structure of TinyNAS has."""
_BUILT_IN = {
    "mbconv": "tfnas.spaces.mbconv.mbconv_family:MBConvFamily",
    "zen": "tfnas.spaces.zen.zen_family:ZenFamily",
}
_FAMILIES: dict[str, Family] = {}
"""Families that have been needed or registered: a search imports no structures."""


def register_family(family: Family) -> None:
    """Add a family of networks; every command and function takes its architectures from then on.

    Raises ValueError where another has its name.
    """
    if family.name in _BUILT_IN or _FAMILIES.setdefault(family.name, family) != family:
        raise ValueError(f"there is a family {family.name!r} already")


def families() -> Mapping[str, Family]:
    """All families by name, those of installed packages included."""
    built_in = {name: _built_in(name) for name in _BUILT_IN}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name not in {**built_in, **_FAMILIES}:
            from tfnas.core.entry_points import register_entry_point  # needed only where a package adds a family

            register_entry_point(entry, object, register_family)
    return {**built_in, **_FAMILIES}


def find_family(name: str) -> Family:
    """The family of that name. Raises InputError that lists the known ones."""
    family = _built_in(name) if name in _BUILT_IN else _FAMILIES.get(name) or families().get(name)
    if family is None:
        raise InputError(f"no family of networks {short(name)}: known are {', '.join(families())}")
    return family


def registered_family(name: str) -> Family | None:
    """The family that this process has registered under a name and that others do not find themselves."""
    installed = {entry.name for entry in metadata.entry_points(group=ENTRY_POINTS)}
    return None if name in installed else _FAMILIES.get(name)


def receive_family(family: Family) -> None:
    """Know a family that another process has registered, unless there is one of its name here."""
    _FAMILIES.setdefault(family.name, family)


@cache
def _built_in(name: str) -> Family:
    module, _, kind = _BUILT_IN[name].partition(":")
    family: Family = getattr(import_module(module), kind)()
    return family


# ---- architectures of any family ------------------------------------------------------------------------------------


def cost_parts(architecture: NetworkArchitecture) -> tuple[CostPart, ...]:
    """The parts that its costs are added up from, the classifier last."""
    return find_family(architecture.family).cost_parts(architecture)


def part_counts(architecture: NetworkArchitecture) -> dict[str, Counts]:
    """Counts of every part by its name in the network, such as `stage1.0` (the first block of stage 1)."""
    return {part.name: part.counts for part in cost_parts(architecture)}


def architecture_counts(architecture: NetworkArchitecture) -> Counts:
    """Parameters and MACs of the whole network, in closed form."""
    return sum_counts(part.counts for part in cost_parts(architecture))


def build_network(
    architecture: NetworkArchitecture,
    num_classes: int | None = None,
    *,
    dropout_rate: float = 0.0,
    drop_connect_rate: float = 0.0,
    residuals: bool = True,
) -> nn.Module:
    """The network of an architecture; see `Family.build`."""
    return find_family(architecture.family).build(
        architecture,
        num_classes,
        dropout_rate=dropout_rate,
        drop_connect_rate=drop_connect_rate,
        residuals=residuals,
    )


# ---- text and JSON --------------------------------------------------------------------------------------------------


def parse_architecture(text: str) -> Any:
    """Read the text form of an architecture of any family. Raises InputError with the place and the reason."""
    for name in (*_BUILT_IN, *_FAMILIES):
        if find_family(name).recognizes(text):
            return find_family(name).parse(text)
    installed = next((family for family in families().values() if family.recognizes(text)), None)
    if installed is not None:
        return installed.parse(text)
    raise InputError(
        f"not the text form of an architecture: {text.strip()[:80]!r} (expected i3x224_n1000:conv_...:mb_..., or a "
        "structure such as SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(8,16,2,8,1)...)"
    )


def to_document(architecture: NetworkArchitecture) -> dict[str, Any]:
    """Our JSON form: of MBConv blocks every field, of other families the text form under the family's name."""
    if isinstance(architecture, Architecture):
        return architecture.to_json()
    text = find_family(architecture.family).format(architecture)
    return {"format": JSON_FORMAT, "version": JSON_VERSION, "family": architecture.family, "text": text}


def from_document(document: Mapping[str, Any]) -> Any:
    """Read our JSON form of an architecture of any family. Raises InputError naming the field that is wrong."""
    if "family" not in document:
        return Architecture.from_json(document)
    if set(document) != {"format", "version", "family", "text"}:
        raise InputError(f"expected the fields format, version, family and text, got {', '.join(map(str, document))}")
    if (document["format"], document["version"]) != (JSON_FORMAT, JSON_VERSION):
        raise InputError(
            f"expected format {JSON_FORMAT!r} version {JSON_VERSION}, "
            f"got {document['format']!r} version {document['version']!r}"
        )
    for name in ("family", "text"):
        if not isinstance(document[name], str):
            raise InputError(f"{name} must be text, got {short(document[name])}")
    return find_family(document["family"]).parse(document["text"])


def original_form(architecture: NetworkArchitecture) -> tuple[str, str] | None:
    """What the file in the form of the program that an architecture is known from is called, and what it says."""
    return find_family(architecture.family).original_form(architecture)


# ---- files ----------------------------------------------------------------------------------------------------------


def load_architecture(path: str | os.PathLike[str], *, image_size: int | None = None) -> Any:
    """Read an architecture of any family: our JSON, `model.config`, a text form in a file, or a run directory.

    `image_size` is for files that say none: `model.config`, and a structure's text alone (default: 224).
    Raises InputError naming the file when it is missing or is none of these.
    """
    file = Path(path) / RUN_FILE if Path(path).is_dir() else Path(path)
    try:
        text = text_form(file)
        if text is not None:
            found = parse_architecture(text)
            sized = image_size is not None and not find_family(found.family).says_images(text)
            return found.adapted(image_size=image_size, num_classes=found.num_classes) if sized else found
        document = load_json_file(file) if file.is_file() else None
        if isinstance(document, dict) and "family" in document:
            return from_document(document)
    except InputError as error:
        raise error if str(error).startswith(str(file)) else InputError(f"{file}: {error}") from error
    return Architecture.load(path, image_size=image_size or _IMAGE_SIZE)


def text_form(file: Path) -> str | None:
    """What a file holds, where that is the text form of an architecture and no JSON of ours or the authors'."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST_TEXT + 1).decode("utf-8").removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError):
        return None
    if text.lstrip()[:1] in ("{", "["):
        return text if _OF_CLASSES.search(text) and '"format"' not in text else None
    return text if any(family.recognizes(text) for family in families().values()) else None
