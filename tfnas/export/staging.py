"""A file that is checked before anybody sees it: written beside its place, looked at, renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tfnas.errors import RunFailed
from tfnas.files import check_replaceable


@contextmanager
def staged(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a hidden file beside `path`, which becomes `path` when the body ends well.

    When the body raises, the hidden file is removed and what stood at `path` stays. Raises RunFailed when the file
    cannot be written.
    """
    check_replaceable(path)
    temporary = None
    try:
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes files private
        except OSError as error:
            raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error
        yield temporary
        try:
            temporary.replace(path)
        except OSError as error:
            raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
