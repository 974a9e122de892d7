"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tfnas.errors import RunFailed


def check_replaceable(path: Path) -> None:
    """Raise RunFailed where something other than a file stands at `path`, such as a device, not to be replaced."""
    if path.exists() and not path.is_file():
        raise RunFailed(
            f"cannot write {path}: it is not a file but a {'folder' if path.is_dir() else 'device or pipe'}"
        )


def write_whole(path: Path, data: bytes | str) -> None:
    """Put the data at `path` by way of a temporary file in the same folder, flushed to disk and renamed.

    Missing folders above it are made.

    Raises RunFailed saying what could not be written and why; what stood at `path` before is then untouched.
    """
    check_replaceable(path)
    raw = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp makes files private
        Path(temporary).replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name too must outlive a power cut
        finally:
            os.close(folder)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error
