"""Reading files of tensors that others wrote, without running anything in them."""

from __future__ import annotations

import pickle
import struct
import warnings
from pathlib import Path
from typing import IO, Any

import torch

from tfnas.errors import InputError


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
        raise InputError(
            f"{source} is no readable checkpoint: it is damaged, or it holds other things than tensors, numbers, text "
            "and containers, which are refused because loading them could run code"
        ) from error
