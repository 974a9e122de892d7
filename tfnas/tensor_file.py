"""Reading files of tensors that others wrote, without running anything in them."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from tfnas.errors import InputError

_ZIP_START = b"PK\x03\x04"
_PICKLE_START = b"\x80"  # as torch wrote them before version 1.6


def load_plain(path: Path) -> Any:
    """What torch.save wrote, on the CPU, if it is tensors, numbers, text and containers.

    Raises InputError for a file that is damaged or holds anything else; nothing in it is run.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        return load_plain_bytes(file, str(path))


def load_plain_bytes(file: IO[bytes], source: str) -> Any:
    """The same from an open file; `source` is what messages call it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickle protocols: what follows from them is an error
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError),
        *(LookupError, AttributeError, AssertionError, OverflowError, MemoryError, struct.error),
    ) as error:
        raise InputError(f"{source} {_what_is_wrong(file)}") from error


def _what_is_wrong(file: IO[bytes]) -> str:
    """Why the open file cannot be read, as far as its content tells."""
    file.seek(0)
    start = file.read(len(_ZIP_START))
    if not start:
        return "is empty: it was not written to its end; write or copy it again"
    if start != _ZIP_START and start[:1] != _PICKLE_START:
        return "is no readable checkpoint: it does not begin as files of tensors (.pt, .pth.tar) do"
    if start == _ZIP_START and _is_damaged(file):
        return "is no readable checkpoint: it is damaged, or was cut short; copy it again"
    damaged = "" if start == _ZIP_START else "it is damaged, or "
    return (
        f"is no readable checkpoint: {damaged}it holds other things than tensors, numbers, text and containers, which "
        "are refused because loading them could run code"
    )


def _is_damaged(file: IO[bytes]) -> bool:
    """Whether the archive lacks its end, or a member differs from its checksum."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return True
