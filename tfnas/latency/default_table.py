"""The bundled table of a space, the space of a table, and whether a table's figures hold on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import Measurement
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.space_file import space_names
from tfnas.utils.devices import device_names
from tfnas.utils.text import command_line

if TYPE_CHECKING:
    from tfnas.latency.structure_table import AnyTable

_PACKAGE = Path(__file__).resolve().parent.parent


def default_table_path(space_name: str) -> Path | None:
    """The measured table of a built-in space, or None where there is none."""
    return next((path for path in shipped_table_paths() if path.name == f"{space_name}_cpu.json"), None)


def shipped_table_paths() -> list[Path]:
    """All bundled tables: in `latency_pkl/` of a source checkout, in the package of an installed wheel.

    The files that a check of a table writes next to it are not tables.
    """
    for folder in (_PACKAGE.parent / "latency_pkl", _PACKAGE / "latency_pkl"):
        if folder.is_dir():
            return sorted(path for path in folder.glob("*.json") if not path.name.endswith(".check.json"))
    return []


def open_table(lookup_path: str | None, space: SearchSpace, space_flags: Sequence[str]) -> tuple[LatencyTable, str]:
    """The table at a path, or the bundled one of the space, checked against the space; and its path.

    `space_flags` name the space on a command line, for the message.

    Raises InputError when there is none or when it is for another space.
    """
    path = lookup_path or default_table_path(space.name) or _fitting_table(space)
    if path is None:
        raise InputError(
            f"there is no bundled latency table for space {space.name}: give one with --lookup_path, or measure one: "
            + command_line("latency build", *space_flags, "--out", f"{space.name}_latency.json")
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
    """The first bundled table that prices all of the space, as it does for a part of a built-in one."""
    for path in shipped_table_paths():
        try:
            LatencyTable.load(path).check(space)
        except InputError:
            continue
        return path
    return None


def table_space(table: LatencyTable, name_or_path: str | None = None) -> SearchSpace:
    """The space that a table is for, at its image size and width multiple: its own, if that is built in, or one named.

    Raises InputError for a table that does not say, for one of a space that is not built in, and when the table does
    not price the one that is named.
    """
    measurement = table.contents.measurement
    if measurement is None:
        raise InputError(f"{table.source} does not say which space it is for: give it with --space")
    if name_or_path is None and measurement.space not in space_names():
        raise InputError(
            f"{table.source} is for the space {measurement.space!r}, which is not a built-in space: give its YAML file "
            "with --space"
        )
    space = load_space(
        name_or_path or measurement.space,
        image_size=measurement.image_size,
        width_multiple=measurement.width_multiple if measurement.width_multiple > 1 else None,
    )
    if name_or_path is None and space.fingerprint != measurement.space_fingerprint:
        raise InputError(
            f"{table.source} is for a space named {measurement.space!r} that differs from the built-in one: "
            "give its YAML file with --space"
        )
    table.check(space)
    return space


SEARCHED_RUNTIME = "torch"
SEARCHED_DTYPE = "float32"


def other_machine(table: AnyTable) -> str | None:
    """That a table was measured on another processor or GPU than this machine has; None where it was not.

    None too for a table that does not say, that was counted, or that a worker measured: it is of another device on
    purpose.
    """
    measurement = table.contents.measurement
    if measurement is None or not table.cost.is_time or measurement.worker:
        return None
    here = device_names(measurement.device_kind)
    if measurement.device in here:
        return None
    return f"the table was measured on {measurement.device}, this machine has {' and '.join(here) or 'no GPU'}"


def search_remarks(table: LatencyTable, *, shipped: bool, space_flags: Sequence[str]) -> tuple[str, ...]:
    """What a search should say about where its table's milliseconds hold; nothing where they hold here.

    If the table is the bundled one (`shipped`), the advice is to measure one. `space_flags` name the space
    on a command line.
    """
    remarks, elsewhere = [], other_machine(table)
    if elsewhere is not None and shipped:
        build = command_line("latency build", *space_flags, "--out", "FILE")
        remarks.append(
            f"warning: {elsewhere}, so the network's latency here will differ from the target: measure a table on this "
            f"machine ({build}) and give it with --lookup_path FILE"
        )
    elif elsewhere is not None:
        remarks.append(f"warning: {elsewhere}: the target applies to that device")
    measurement = table.contents.measurement
    if measurement is not None and table.cost.is_time:
        how = _differing(measurement, SEARCHED_RUNTIME, SEARCHED_DTYPE)
        if measurement.device_kind == "cpu" and measurement.threads > 1:
            how.append(f"{measurement.threads} threads")
        if how:
            remarks.append(
                f"warning: the target applies to {', '.join(how)}, not to PyTorch with float32 on one thread"
            )
    return tuple(remarks)


def other_conditions(measurement: Measurement, device: str, threads: int) -> list[str]:
    """What of a table's conditions is not as in PyTorch in float32 on a device, with so many threads on a processor."""
    words = _differing(measurement, SEARCHED_RUNTIME, SEARCHED_DTYPE)
    if measurement.device_kind == "cpu" and measurement.threads != threads:
        words.append(f"{measurement.threads} thread{'' if measurement.threads == 1 else 's'}")
    return words if measurement.device == device else [f"on {measurement.device}", *words]


def _differing(measurement: Measurement, runtime: str, dtype: str) -> list[str]:
    pairs = ((measurement.runtime, runtime), (measurement.dtype, dtype))
    return [found for found, wanted in pairs if found != wanted]
