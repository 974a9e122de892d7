"""Everything that the benchmark finds, a line each as it is found: killed at any moment, it goes on from there."""

from __future__ import annotations

import fcntl
import json
import os
from io import BufferedRandom
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError

_NUMBERS = "numbers"


class Journal:
    """Numbers by what they are of, in a file of JSON lines that one process at a time may write."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; a last line that was cut off is taken away.

        Raises InputError where another benchmark is at work in the file, or it holds something else.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._entries = _read(self._file, path)
        except OSError:
            self.close()
            raise InputError(f"{path}: another benchmark is at work with it: wait, or give another --run_dir") from None
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the file to others."""
        self._file.close()

    def find(self, **identity: Any) -> dict[str, Any] | None:
        """The numbers of what is named, if they were found before."""
        return self._entries.get(_key(identity))

    def record(self, numbers: dict[str, Any], **identity: Any) -> None:
        """Keep the numbers of what is named, safe on the disk."""
        self._file.write(json.dumps({**identity, _NUMBERS: numbers}).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._entries[_key(identity)] = numbers


def _read(file: BufferedRandom, path: Path) -> dict[str, dict[str, Any]]:
    """The entries of whole lines; the rest of a line that was cut off is taken away."""
    file.seek(0)
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        file.truncate(len(whole))
    entries = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(line)
            numbers = entry.pop(_NUMBERS)
            entries[_key(entry)] = numbers
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}:{number} is no line of this benchmark") from error
    return entries


def _key(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)
