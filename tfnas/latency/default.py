"""Where the tables that come with the package lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def default_table_path(space_name: str) -> Path | None:
    """The measured table of a built-in space, or None where there is none.

    A source checkout holds the tables in `latency_pkl/` at its top level; an installed wheel holds them in the package.
    """
    for folder in (_PACKAGE.parent / "latency_pkl", _PACKAGE / "latency_pkl"):
        path = folder / f"{space_name}_cpu.json"
        if path.is_file():
            return path
    return None
