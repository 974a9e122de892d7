"""The two JSON forms of a parsed architecture, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfnas.architecture import RUN_FILE
from tfnas.errors import InputError
from tfnas.json_text import load_json_file
from tfnas.parse.parsed import Parsed
from tfnas.parse.source import UNFINISHED
from tfnas.run import MODEL_CONFIG_FILE, write_forms
from tfnas.wording import typed


def write_files(parsed: Parsed, save_path: str | None = None) -> tuple[Path, ...]:
    """Write the authors' form to `save_path` and ours beside it; returns both paths.

    Without `save_path` they go where the result of a finished run stands already, else to ./model.config, where they
    replace nothing; and what an unfinished search would derive now is not written at all, as it is no result. Ours is
    called architecture.json beside a model.config, and otherwise like the other one, ending in .json.

    Raises InputError for a path that cannot be meant, and where another network would be replaced without being asked
    for; RunFailed when a file cannot be written.
    """
    if save_path is None and parsed.source.kind == UNFINISHED:
        return ()
    authors = Path(save_path) if save_path else (parsed.source.finished_run or Path()) / MODEL_CONFIG_FILE
    if authors.is_dir():
        authors = authors / MODEL_CONFIG_FILE
    ours = authors.with_name(RUN_FILE) if authors.name == MODEL_CONFIG_FILE else authors.with_suffix(".json")
    if ours == authors:
        raise InputError(f"--save_path {authors}: .json is the ending of our own form; give model.config, for instance")
    if not authors.parent.is_dir():
        raise InputError(f"--save_path {authors}: there is no folder {authors.parent}; make it first")
    if save_path is None and parsed.source.finished_run is None:
        _check_nothing_replaced(parsed, ours, authors)
    write_forms(parsed.architecture, ours, authors)
    return authors, ours


def _check_nothing_replaced(parsed: Parsed, ours: Path, authors: Path) -> None:
    """Raise InputError where one of the files is there and says something else."""
    forms = ((ours, parsed.architecture.to_json()), (authors, parsed.architecture.to_model_config()))
    for path, form in forms:
        if path.exists() and not _holds(path, form):
            raise InputError(
                f"{path.absolute()} is there already and holds something else: --save_path {typed(authors)} replaces "
                "it, and another --save_path writes elsewhere"
            )


def _holds(path: Path, form: dict[str, Any]) -> bool:
    try:
        return bool(load_json_file(path) == json.loads(json.dumps(form)))
    except (OSError, InputError):
        return False
