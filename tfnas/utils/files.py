"""Files that are written whole or not at all, files that grow by whole lines of JSON, and reading lines of text.

Killed at any moment, a process leaves the first as they were, and all lines of the second but perhaps the last.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError, RunFailed

_TRIED_BYTES = 4096
_REMEDIES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_error(path: Path, error: OSError) -> RunFailed:
    """The error that says what could not be written, why, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another path")
    return RunFailed(f"cannot write {path}: {error.strerror or error}; {remedy}")


def check_replaceable(path: Path) -> None:
    """Raise RunFailed where something other than a file stands at `path`, or none can: a device is not replaced."""
    with _failures_named(path):
        if path.exists() and not path.is_file():
            kind = "folder" if path.is_dir() else "device or pipe"
            raise RunFailed(f"cannot write {path}: it is not a file but a {kind}; choose another path")


def check_writable(path: Path) -> None:
    """Raise RunFailed as `write_whole` would where no file can be written at `path`: worth knowing before long work.

    The write itself is tried, since neither permissions nor a free name tell of a full or read-only disk: a few
    kilobytes in a hidden file beside `path`, and the folders above it that are missing. Nothing of it stays.
    """
    check_replaceable(path)
    made: list[Path] = []
    try:
        with _failures_named(path):
            made += [folder for folder in path.parents if not folder.exists()]
        with _beside(path, bytes(_TRIED_BYTES)):
            pass
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def write_whole(path: Path, data: bytes | str) -> None:
    """Put the data at `path` by way of a temporary file in the same folder, flushed to disk and renamed.

    Missing folders above it are made.

    Raises RunFailed saying what could not be written and why; what stood at `path` before is then untouched.
    """
    with staged(path, data.encode() if isinstance(data, str) else data):
        pass


@contextmanager
def staged(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a hidden file beside `path`, for the body to look at; it becomes `path` when the body ends well.

    Missing folders above it are made. When the body raises, the hidden file is removed and what stood at `path` stays.

    Raises RunFailed saying what could not be written and why.
    """
    check_replaceable(path)
    with _beside(path, data) as temporary:
        with _failures_named(path):
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes files private
        yield temporary
        with _failures_named(path):
            temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the new name too must outlive a power cut
            finally:
                os.close(folder)


@contextmanager
def _beside(path: Path, data: bytes) -> Iterator[Path]:
    """The data, flushed to disk, in a hidden file beside `path`, which is removed at the end unless it has moved."""
    temporary = None
    try:
        with _failures_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        yield temporary
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """Raise the body's OSError as RunFailed that names the path."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


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
            raise write_error(path, error) from error
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


def read_text_lines(path: Path, what: str) -> list[str]:
    """Read the lines of a text file, without their ends (LF or CRLF) and without empty lines at its end.

    Raises:
        InputError: The file is missing, unreadable, or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{what} {path}: is not UTF-8 text; save it as UTF-8") from None
    text = text.rstrip()
    # Not splitlines(), which also ends lines at characters that may stand in a path.
    return [line.strip() for line in text.split("\n")] if text else []
