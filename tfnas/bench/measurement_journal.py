"""The visits of a measurement as they are made, in a file beside the result: killed at any moment, it goes on there.

The first line says what is measured; every further line is one visit. What was measured is answered from the file, in
the order in which it was asked for, and the rest is measured; so a program whose next question depends only on what it
was answered comes back to where it was.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.local_bench import Bench
from tfnas.bench.timing import TimingSample
from tfnas.core.errors import InputError, RunFailed
from tfnas.utils.text import typed

_LONG = ("space", "versions")
"""Parts of a subject that are no single words."""


class Journal:
    """Visits of a bench, those of an earlier try first."""

    def __init__(self, path: Path, file: FileIO, bench: Bench, recorded: Sequence[Mapping[str, Any]]) -> None:
        self._path, self._file, self._bench = path, file, bench
        self._recorded = list(reversed(recorded))
        self.replayed = len(recorded)
        self.seconds = 0.0
        """Time that measuring has taken so far, in this try and those before it."""

    @classmethod
    @contextmanager
    def open(cls, path: Path, subject: Mapping[str, Any], bench: Bench) -> Iterator[Journal]:
        """The journal at a path, made if there is none; `subject` says what is measured.

        Raises InputError when the file is of another measurement or in use, RunFailed when it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = FileIO(path, "a+")
        except OSError as error:
            raise RunFailed(f"{path} cannot be written: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"another process is measuring into {path} at this moment") from error
            recorded = _entries(path, file, dict(subject))
            yield cls(path, file, bench, recorded)

    def measure(self, cases: Sequence[BenchmarkCase], order: Sequence[int], calls: int) -> Iterator[TimingSample]:
        """As the bench's; those already in the file come from there."""
        done = 0
        while done < len(order) and self._recorded:
            entry = self._recorded.pop()
            name = cases[order[done]].name
            if entry["name"] != name or len(entry["own_ms"]) != calls:
                raise InputError(
                    f"{self._path} is damaged: it holds a visit of {entry['name']} where {name} belongs; "
                    f"remove it (rm {typed(self._path)}) and measure anew"
                )
            self.seconds = entry["seconds"]
            yield TimingSample(tuple(entry["own_ms"]), tuple(entry["reference_ms"]))
            done += 1
        rest = order[done:]
        if not rest:
            return
        started = time.monotonic() - self.seconds
        for index, visit in zip(rest, self._bench.measure(cases, rest, calls), strict=True):
            self.seconds = round(time.monotonic() - started, 3)  # as it is read back, so that decisions come out alike
            self._write({"name": cases[index].name, **vars(visit), "seconds": self.seconds})
            yield visit

    def remove(self) -> None:
        """The measurement is done and its result is written."""
        self._path.unlink(missing_ok=True)

    def _write(self, entry: Mapping[str, Any]) -> None:
        _append(self._path, self._file, entry)


def _entries(path: Path, file: FileIO, subject: dict[str, Any]) -> list[dict[str, Any]]:
    """The visits of an earlier try; a last line that was cut off is taken away, and an empty file gets its first line.

    Raises InputError when the file is of another measurement, or none of ours.
    """
    file.seek(0)
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        file.truncate(0)
        _append(path, file, {"subject": subject})
        return []
    file.truncate(len(whole))
    try:
        first, *entries = [json.loads(line) for line in whole.splitlines()]
        found = first["subject"]
        wrong = [entry for entry in entries if not _is_visit(entry)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(_not_ours(path)) from error
    if wrong:
        raise InputError(_not_ours(path))
    if found != json.loads(json.dumps(subject)):
        raise InputError(
            f"{path} was left by another measurement ({_differences(found, subject)}): go on with its settings, or "
            f"remove it (rm {typed(path)}) and measure anew"
        )
    return entries


def _differences(found: Any, subject: Mapping[str, Any]) -> str:
    """What an earlier measurement was of, where that is not the same: `batch 32 in place of 8`."""
    if not isinstance(found, dict):
        return "of something else"
    differing = {name: (found.get(name), value) for name, value in subject.items() if found.get(name) != value}
    words = [
        f"another {name}" if name in _LONG else f"{name} {_said(before)} in place of {_said(now)}"
        for name, (before, now) in differing.items()
    ]
    return ", ".join(words) or "of more than this one"


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:.40}" if isinstance(value, str) else f"{value!r:.40}"


def _is_visit(entry: Any) -> bool:
    if set(entry) != {"name", "own_ms", "reference_ms", "seconds"} or not isinstance(entry["name"], str):
        return False
    rows = entry["own_ms"], entry["reference_ms"]
    if not all(isinstance(row, list) and row for row in rows) or len(rows[0]) != len(rows[1]):
        return False
    numbers = [*rows[0], *rows[1], entry["seconds"] + 1]
    return all(isinstance(number, int | float) and 0 < number < 1e12 for number in numbers)


def _not_ours(path: Path) -> str:
    return f"{path} is not what a measurement leaves behind: remove it (rm {typed(path)}) or give another --out"


def _append(path: Path, file: FileIO, entry: Mapping[str, Any]) -> None:
    try:
        line = json.dumps(entry).encode() + b"\n"
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise RunFailed(
            f"{path} cannot be written: {error.strerror}; what is in it is kept, run the same command to go on"
        ) from error
