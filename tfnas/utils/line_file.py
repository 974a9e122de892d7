"""A file that grows by whole lines of JSON: killed at any moment, a process leaves all lines but the last intact."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError, RunFailed


class LineFile:
    """An open file of lines; `lines` are those that it held when it was opened."""

    def __init__(self, path: Path, file: FileIO, lines: list[bytes]) -> None:
        self.path, self.lines, self._file = path, lines, file

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, in_use: str | None = None) -> Iterator[LineFile]:
        """The file at a path, created if there is none; an incomplete last line is removed.

        With `in_use` it is locked against other processes, and that is the message if one has it. Raises RunFailed when
        the file cannot be written, and InputError when it is locked.
        """
        try:
            file = FileIO(path, "a+")
        except OSError as error:
            raise RunFailed(f"{path} cannot be written: {error.strerror or error}") from error
        with file:
            if in_use is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise InputError(in_use) from error
            file.seek(0)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                file.truncate(len(whole))
            yield cls(path, file, whole.splitlines())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write a line. Raises RunFailed when it cannot be written; what is in the file stays."""
        line = json.dumps(entry).encode() + b"\n"
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RunFailed(
                f"{self.path} cannot be written: {error.strerror or error}; its contents are intact, run the same "
                "command to resume"
            ) from error
