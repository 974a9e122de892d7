"""The samples of a measurement as they are made, in a file next to the result: killed at any moment, it resumes there.

The first line says what is measured; every further line is one sample. What was measured is answered from the file, in
the order in which it was asked for, and the rest is measured; so a program whose next question depends only on earlier
answers comes back to where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfnas.bench.benches import Bench
from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.timing import TimingSample
from tfnas.core.errors import InputError
from tfnas.utils.files import LineFile, write_error
from tfnas.utils.text import typed

_LONG = ("space", "versions")
"""Parts of a subject that are no single words."""


class MeasurementJournal:
    """Samples of a bench, those of an earlier try first."""

    def __init__(self, file: LineFile, bench: Bench, recorded: Sequence[Mapping[str, Any]]) -> None:
        self._file, self._bench = file, bench
        self._recorded = list(reversed(recorded))
        self.replayed = len(recorded)
        self.seconds = 0.0
        """Time that measuring has taken so far, in this try and those before it."""

    @classmethod
    @contextmanager
    def open(cls, path: Path, subject: Mapping[str, Any], bench: Bench) -> Iterator[MeasurementJournal]:
        """The journal at a path, created if there is none; `subject` says what is measured.

        Raises InputError when the file is of another measurement or in use, RunFailed when it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        with LineFile.open(path, in_use=f"another process is currently measuring into {path}") as file:
            yield cls(file, bench, _entries(file, dict(subject)))

    def measure(self, cases: Sequence[BenchmarkCase], order: Sequence[int], calls: int) -> Iterator[TimingSample]:
        """As the bench's; those already in the file come from there."""
        done = 0
        while done < len(order) and self._recorded:
            entry = self._recorded.pop()
            name = cases[order[done]].name
            if entry["name"] != name or len(entry["own_ms"]) != calls:
                raise InputError(
                    f"{self._file.path} is damaged: it contains a measurement of {entry['name']} instead of {name}; "
                    f"remove it (rm {typed(self._file.path)}) and measure again"
                )
            self.seconds = entry["seconds"]
            yield TimingSample(tuple(entry["own_ms"]), tuple(entry["reference_ms"]))
            done += 1
        rest = order[done:]
        if not rest:
            return
        started = time.monotonic() - self.seconds
        for index, sample in zip(rest, self._bench.measure(cases, rest, calls), strict=True):
            self.seconds = round(time.monotonic() - started, 3)  # as it is read back, so that decisions come out alike
            self._file.append({"name": cases[index].name, **vars(sample), "seconds": self.seconds})
            yield sample

    def remove(self) -> None:
        """The measurement is done and its result is written."""
        self._file.path.unlink(missing_ok=True)


def _entries(file: LineFile, subject: dict[str, Any]) -> list[dict[str, Any]]:
    """The samples of an earlier try; an empty file gets its first line.

    Raises InputError when the file is of another measurement, or not a journal.
    """
    if not file.lines:
        file.append({"subject": subject})
        return []
    path = file.path
    try:
        first, *entries = [json.loads(line) for line in file.lines]
        found = first["subject"]
        wrong = [entry for entry in entries if not _is_sample(entry)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(_not_ours(path)) from error
    if wrong:
        raise InputError(_not_ours(path))
    if found != json.loads(json.dumps(subject)):
        raise InputError(
            f"{path} belongs to a different measurement ({_differences(found, subject)}): use the same settings, or "
            f"remove it (rm {typed(path)}) and measure again"
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


def _is_sample(entry: Any) -> bool:
    if set(entry) != {"name", "own_ms", "reference_ms", "seconds"} or not isinstance(entry["name"], str):
        return False
    rows = entry["own_ms"], entry["reference_ms"]
    if not all(isinstance(row, list) and row for row in rows) or len(rows[0]) != len(rows[1]):
        return False
    numbers = [*rows[0], *rows[1], entry["seconds"] + 1]
    return all(isinstance(number, int | float) and 0 < number < 1e12 for number in numbers)


def _not_ours(path: Path) -> str:
    return f"{path} is not a measurement journal: remove it (rm {typed(path)}) or give another --out"
