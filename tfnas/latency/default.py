"""Which table a space is priced by where none is named, and which space a table was measured for."""

from __future__ import annotations

from pathlib import Path

from tfnas.errors import InputError
from tfnas.invocation import command_line
from tfnas.latency.table import LatencyTable
from tfnas.space import SearchSpace
from tfnas.space_file import space as load_space
from tfnas.space_file import space_arguments, space_names

_PACKAGE = Path(__file__).resolve().parent.parent


def default_table_path(space_name: str) -> Path | None:
    """The measured table of a built-in space, or None where there is none."""
    return next((path for path in shipped_table_paths() if path.name == f"{space_name}_cpu.json"), None)


def shipped_table_paths() -> list[Path]:
    """All tables that come along: in `latency_pkl/` of a source checkout, in the package of an installed wheel.

    What a check of a table leaves beside it is none.
    """
    for folder in (_PACKAGE.parent / "latency_pkl", _PACKAGE / "latency_pkl"):
        if folder.is_dir():
            return sorted(path for path in folder.glob("*.json") if not path.name.endswith(".check.json"))
    return []


def open_table(lookup_path: str | None, space: SearchSpace, named: str) -> tuple[LatencyTable, str]:
    """The table at a path, or the one shipped for the space, checked against the space; and its path.

    `named` is what the user calls the space, for the message.

    Raises InputError when there is none or when it is for another space.
    """
    path = lookup_path or default_table_path(space.name) or _fitting_table(space)
    if path is None:
        raise InputError(
            f"no latency table comes with space {space.name}: give one with --lookup_path, or measure one with: "
            + command_line("latency build", *space_arguments(space, named), "--out", f"{space.name}_latency.json")
        )
    table = LatencyTable.load(path)
    table.check(space)
    return table, str(path)


def is_default(lookup_path: str | None, space: SearchSpace) -> bool:
    """Whether a table is the one that a space has where none is named; so says a resumed run's path of it, too."""
    if lookup_path is None:
        return False
    default = default_table_path(space.name) or _fitting_table(space)
    return default is not None and default.resolve() == Path(lookup_path).resolve()


def _fitting_table(space: SearchSpace) -> Path | None:
    """The first table that comes along and prices all of the space, as it does for a part of a built-in one."""
    for path in shipped_table_paths():
        try:
            LatencyTable.load(path).check(space)
        except InputError:
            continue
        return path
    return None


def space_of(table: LatencyTable, name_or_path: str | None = None) -> SearchSpace:
    """The space that a table is for, at its image size and width multiple: its own, if that is built in, or one named.

    Raises InputError for a table that does not say, for one of a space that is not built in, and when the table does
    not price the one that is named.
    """
    measurement = table.contents.measurement
    if measurement is None:
        raise InputError(f"{table.source} does not say which space it is for: give it with --space")
    if name_or_path is None and measurement.space not in space_names():
        raise InputError(
            f"{table.source} is for the space {measurement.space!r}, which does not come along: give its YAML file "
            "with --space"
        )
    space = load_space(name_or_path or measurement.space).at(measurement.image_size)
    if measurement.width_multiple > 1:
        space = space.in_multiples_of(measurement.width_multiple)
    if name_or_path is None and space.fingerprint != measurement.space_fingerprint:
        raise InputError(
            f"{table.source} is for a space {measurement.space!r} that is not the one of that name that comes along: "
            "give its YAML file with --space"
        )
    table.check(space)
    return space
