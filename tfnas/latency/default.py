"""Where the tables that come with the package lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def default_table_path(space_name: str) -> Path | None:
    """The measured table of a built-in space, or None where there is none."""
    return next((path for path in shipped_table_paths() if path.name == f"{space_name}_cpu.json"), None)


def shipped_table_paths() -> list[Path]:
    """All tables that come along: in `latency_pkl/` of a source checkout, in the package of an installed wheel."""
    for folder in (_PACKAGE.parent / "latency_pkl", _PACKAGE / "latency_pkl"):
        if folder.is_dir():
            return sorted(folder.glob("*.json"))
    return []
