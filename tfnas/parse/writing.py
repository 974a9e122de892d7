"""The two JSON forms of a parsed architecture, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from tfnas.architecture import RUN_FILE
from tfnas.errors import InputError
from tfnas.parse.parsed import Parsed
from tfnas.run import MODEL_CONFIG_FILE, write_forms


def write_files(parsed: Parsed, save_path: str | None = None) -> tuple[Path, Path]:
    """Write the authors' form to `save_path` and ours beside it; returns both paths.

    By default they go where the result of a finished run stands already, else to ./model.config. Ours is called
    architecture.json beside a model.config, and otherwise like the other one, ending in .json.
    Raises InputError for a path that cannot be meant, and RunFailed when a file cannot be written.
    """
    authors = Path(save_path) if save_path else (parsed.source.finished_run or Path()) / MODEL_CONFIG_FILE
    if authors.is_dir():
        authors = authors / MODEL_CONFIG_FILE
    ours = authors.with_name(RUN_FILE) if authors.name == MODEL_CONFIG_FILE else authors.with_suffix(".json")
    if ours == authors:
        raise InputError(f"--save_path {authors}: .json is the ending of our own form; give model.config, for instance")
    if not authors.parent.is_dir():
        raise InputError(f"--save_path {authors}: there is no folder {authors.parent}; make it first")
    write_forms(parsed.architecture, ours, authors)
    return authors, ours
