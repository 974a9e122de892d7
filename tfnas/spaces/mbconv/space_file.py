"""Reading search spaces: the built-in ones by name, a user's own from a YAML file, with the wrong field named."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from tfnas.core.errors import InputError, did_you_mean
from tfnas.core.json_yaml import load_yaml, short
from tfnas.core.mbconv_blocks import MOST_CHANNELS, MOST_IMAGE_SIZE, MOST_KERNEL_SIZE, MOST_STRIDE, check_number
from tfnas.core.space import Operation, SearchSpace, Stage

A = TypeVar("A")
B = TypeVar("B")

ENTRY_POINTS = "tfnas.spaces"
_PACKAGE = "tfnas.spaces.mbconv"
_MOST = {
    "image_size": MOST_IMAGE_SIZE,
    "stem_channels": MOST_CHANNELS,
    "stem_stride": MOST_STRIDE,
    "second_stem_channels": MOST_CHANNELS,
    "second_stem_se_channels": MOST_CHANNELS,
    "feature_mix_channels": MOST_CHANNELS,
    "width_multiple": MOST_CHANNELS,
}
_MOST_OF_A_STAGE = {"channels": MOST_CHANNELS, "blocks": 1000, "min_blocks": 1000}
_LONGEST_OPERATION = 30
_LARGEST_SETTING = 1e300
_BOUND = re.compile(r"\d{1,9}(?:\.\d{1,20})?(?:/\d{1,9})?", re.ASCII)
"""A bound of widths: of numbers with exponents the exact value could take all memory."""


def space_names() -> list[str]:
    """Names of the built-in spaces."""
    return built_in_spaces(_PACKAGE)


def space(name_or_path: str | Path, *, image_size: int | None = None, width_multiple: int | None = None) -> SearchSpace:
    """The space of a built-in name (`imagenet`, `cifar`, `digits`) or of a YAML file.

    `image_size` in pixels and `width_multiple` replace the space's own.
    Raises InputError naming the file and the field that is wrong, and why.
    """
    document, where = read_space_document(str(name_or_path), _PACKAGE, completed="schedule")
    try:
        found = _read_space(document)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if image_size is not None:
        found = found.at(image_size)
    return found if width_multiple is None else found.in_multiples_of(width_multiple)


def space_arguments(found: SearchSpace, named: str | None) -> list[str]:
    """The flags that name a space at its image size and width multiple: `--space digits --image_size 24`.

    `named` is what the user calls it, where that is known. Of a space that is neither named nor built in, the file's
    name is taken to be the space's.
    """
    known = named or (found.name if found.name in space_names() else None)
    plain = found if known is None else space(known)
    arguments = ["--space", known or f"{found.name}.yaml"]
    for name in ("image_size", "width_multiple"):
        value = getattr(found, name)
        arguments += [] if value == getattr(plain, name) else [f"--{name}", str(value)]
    return arguments


def space_from_json(document: Mapping[str, Any]) -> SearchSpace:
    """The space that `SearchSpace.to_json` wrote. Raises InputError naming the field that is wrong."""
    return _read_space(document)


def built_in_spaces(package: str) -> list[str]:
    """Names of the spaces that are YAML files of a package."""
    files = resources.files(package).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in files if entry.name.endswith(".yaml"))


def installed_spaces() -> list[str]:
    """Names of the spaces of installed packages: their entry points name the path of a YAML file."""
    return sorted(entry.name for entry in entry_points(group=ENTRY_POINTS))


def installed_space(name: str) -> str | None:
    """The file of a space of an installed package; None where there is none, and where a file has that name.

    Raises InputError naming the package where its entry point cannot be loaded.
    """
    if os.path.isfile(name):  # noqa: PTH113 - a name may be too long for a path
        return None
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        from tfnas.core.entry_points import load_entry_point  # needed only where a package adds a space

        return str(load_entry_point(entry, Path))
    return None


def read_space_document(
    name_or_path: str, package: str, completed: str, seen: tuple[str, ...] = ()
) -> tuple[dict[str, Any], str]:
    """The fields of a space with those of the space it extends filled in, and a name for messages.

    The space has its name in the package, or is a file, of an installed package, too. A field replaces the extended
    space's, but for the mapping `completed`, which is completed entry by entry. Raises InputError naming the file.
    """
    names = built_in_spaces(package)
    if name_or_path not in names:
        name_or_path = installed_space(name_or_path) or name_or_path
    if name_or_path in names:
        text = (resources.files(package) / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        where = f"space {name_or_path}"
    elif Path(name_or_path).is_file():
        where = f"space file {name_or_path}"
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{where} cannot be read: {error}") from error
    else:
        hint = did_you_mean(name_or_path, names)
        raise InputError(f"no space {name_or_path!r}: give one of {', '.join(names)} or a YAML file{hint}")
    try:
        document = load_yaml(text)
    except InputError as error:
        raise InputError(f"{where} is {error}") from error
    if not isinstance(document, dict):
        raise InputError(
            f"{where} must be a mapping of fields such as `extends: imagenet`, got {type(document).__name__}"
        )
    parent = document.pop("extends", None)
    if parent is None:
        return document, where
    if not isinstance(parent, str) or parent in seen:
        raise InputError(f"{where}: extends must name another space, got {parent!r}")
    inherited, _ = read_space_document(parent, package, completed, (*seen, name_or_path))
    entries = document.get(completed)
    if isinstance(entries, dict):
        document[completed] = {**inherited.get(completed, {}), **entries}
    document.setdefault("name", Path(name_or_path).stem)
    return {**inherited, **document}, where


def _read_space(document: Mapping[str, Any]) -> SearchSpace:
    fields = known_fields(document, SearchSpace, "")
    for name in ("name", "stem_activation", "feature_mix_activation"):
        expect_type(fields[name], str, name)
    for name, most in _MOST.items():
        check_number(name, expect_type(fields.get(name, 1), int, name), most, least=0)
    channels, stages = fields["second_stem_channels"], []
    for index, entry in enumerate(expect_type(fields["stages"], list, "stages")):
        stages.append(_read_stage(entry, f"stages[{index}]", channels))
        channels = stages[-1].channels
    fields["stages"] = tuple(stages)
    names = [expect_type(name, str, "operations") for name in expect_type(fields["operations"], list, "operations")]
    for name in names:
        if len(name) > _LONGEST_OPERATION:
            raise InputError(f"operations: {name[:_LONGEST_OPERATION]!r}... is not an operation")
    fields["operations"] = tuple(_located("operations", Operation.parse, name) for name in names)
    if "width_bounds" in fields:
        fields["width_bounds"] = _read_bounds(fields["width_bounds"])
    fields["schedule"] = _read_schedule(fields.get("schedule", {}))
    space = SearchSpace(**fields)
    for operation in space.operations:
        check_number(f"operations: the kernel of {operation.name}", operation.kernel_size, MOST_KERNEL_SIZE)
        for place in space.blocks:
            widest = space.width_range(place, operation)[1]
            check_number(f"operations: the width of {operation.name} in {place.name}", widest, MOST_CHANNELS)
    return space


def _read_stage(entry: object, where: str, in_channels: int) -> Stage:
    fields = known_fields(expect_type(entry, dict, where), Stage, f"{where}.")
    for name in fields:
        value = expect_type(fields[name], str if name == "activation" else int, f"{where}.{name}")
        if name in _MOST_OF_A_STAGE:
            check_number(f"{where}.{name}", value, _MOST_OF_A_STAGE[name], least=0)
    keeps_shape = fields["stride"] == 1 and fields["channels"] == in_channels
    return Stage(**{"min_blocks": 0 if keeps_shape else 1, **fields})


def _read_bounds(value: object) -> tuple[Fraction, Fraction]:
    bounds = expect_type(value, list, "width_bounds")
    if len(bounds) != 2:
        raise InputError(f"width_bounds must be two numbers like [2/3, 4/3], got {bounds}")
    try:
        if not all(_BOUND.fullmatch(str(bound)) for bound in bounds):
            raise ValueError
        low, high = (Fraction(str(bound)) for bound in bounds)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"width_bounds must be two numbers like [2/3, 4/3], got {bounds}") from error
    return low, high


def _read_schedule(value: object) -> dict[str, bool | int | float]:
    """Names with numbers, or true and false; what they mean is for the search that reads them."""
    found: dict[str, bool | int | float] = {}
    for name, entry in expect_type(value, dict, "schedule").items():
        where = f"schedule.{expect_type(name, str, 'a name in schedule')}"
        found[name] = entry if isinstance(entry, bool) else expect_type(entry, float, where)
        if not abs(found[name]) <= _LARGEST_SETTING:
            raise InputError(f"{where} must be a finite number, got {short(entry)}")
    return found


def known_fields(mapping: Mapping[str, Any], kind: type[Any], prefix: str, *, partial: bool = False) -> dict[str, Any]:
    """The entries of a mapping, which must be fields of the dataclass, all that have no default unless `partial`."""
    known = {item.name: item for item in dataclasses.fields(kind)}
    for name in mapping:
        if name not in known:
            raise InputError(f"unknown field {prefix}{name}{did_you_mean(str(name), known)}; known: {', '.join(known)}")
    for name, item in known.items():
        no_default = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if no_default and name not in mapping and not partial:
            raise InputError(f"field {prefix}{name} is missing")
    return dict(mapping)


def expect_type(value: Any, kind: type[Any], where: str) -> Any:
    """The value if it has the type (whole numbers pass as numbers, booleans do not), else InputError."""
    if kind is float and isinstance(value, str):
        try:  # YAML reads 1e-5, without a point, as text
            return float(value)
        except ValueError:
            pass
    accepted = (int, float) if kind is float else (kind,)
    if isinstance(value, accepted) and isinstance(value, bool) == (kind is bool):
        return value
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    raise InputError(f"{where} must be {words[kind]}, got {value!r}")


def _located(where: str, make: Callable[[A], B], argument: A) -> B:
    try:
        return make(argument)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
