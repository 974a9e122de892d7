"""Every number as it is found, in a file of the run directory: killed at any moment, re-ranking goes on with it.

A line is one number: of which architecture, called what, under which settings. Lines of other settings are left alone,
so that a second re-ranking with one more score computes that score only.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError, RunFailed
from tfnas.searching.reranking.rerank_tasks import Task
from tfnas.utils.text import typed

JOURNAL_FILE = "rerank.journal"


class ResultJournal:
    """Numbers found so far, by task. The run directory must be locked: two writers would mix their lines."""

    def __init__(self, path: Path, file: FileIO, entries: Mapping[str, float]) -> None:
        self._path, self._file, self._values = path, file, dict(entries)

    @classmethod
    @contextmanager
    def open(cls, run_dir: Path) -> Iterator[ResultJournal]:
        """The journal in a run directory, made if there is none; a last line that was cut off is taken away.

        Raises InputError when the file is not what this leaves behind, RunFailed when it cannot be written.
        """
        path = run_dir / JOURNAL_FILE
        try:
            file = FileIO(path, "a+")
        except OSError as error:
            raise RunFailed(f"{path} cannot be written: {error.strerror or error}") from error
        with file:
            file.seek(0)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                file.truncate(len(whole))
            yield cls(path, file, _entries(path, whole))

    def value(self, task: Task) -> float | None:
        """The number of a task, if it was found before."""
        return self._values.get(_key(_identity(task)))

    def record(self, task: Task, value: float, seconds: float) -> None:
        """Keep a number. Raises RunFailed when it cannot be written; what is in the file stays."""
        identity = _identity(task)
        line = json.dumps({**identity, "value": value, "seconds": round(seconds, 4)}).encode() + b"\n"
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RunFailed(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._values[_key(identity)] = value


def _identity(task: Task) -> dict[str, Any]:
    return {"measure": task.measure, "architecture": task.architecture, "settings": task.settings()}


def _key(identity: Mapping[str, Any]) -> str:
    return json.dumps([identity["measure"], identity["architecture"], identity["settings"]], sort_keys=True)


def _entries(path: Path, data: bytes) -> dict[str, float]:
    found = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(line)
            key, value = _key(entry), entry["value"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _damaged(path, number) from error
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _damaged(path, number)
        found[key] = float(value)
    return found


def _damaged(path: Path, line: int) -> InputError:
    return InputError(
        f"{path}:{line} is not what re-ranking leaves behind: remove the file (rm {typed(path)}), and all is computed "
        "again"
    )
