"""numpy's numbers in others' files (`best_acc_top1` and the like), rebuilt without calling anything that is numpy's.

A pickled numpy number is a call of `numpy.dtype`, one of its `__setstate__`, and a call of `scalar` with type and
bytes. Given other arguments these make objects and structures of any size, and change types that the whole process
shares. So the names are answered by classes of this file, which take the types of numbers, truth values and text only,
with exactly the bytes that they have, and give Python's own.
"""

from __future__ import annotations

import re
import sys
from pickle import UnpicklingError
from typing import Any

import numpy as np

_NAME = re.compile(r"b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d{1,4}", re.ASCII)
_BYTE_ORDERS = ("<", ">", "=", "|")


class StoredType:
    """A numpy data type as a file holds it, `dtype`: of numbers, truth values or text.

    Raises UnpicklingError for any other.
    """

    def __init__(self, name: object, _align: object = False, _copy: object = False, /) -> None:
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise UnpicklingError(f"refused: numpy.dtype of {name!a:.40}")
        self._name, self._byte_order = name, "="

    def __setstate__(self, state: object) -> None:
        """Take the byte order. What else a state may hold is of structures and metadata, which are refused."""
        if not isinstance(state, tuple) or len(state) != 8 or state[1] not in _BYTE_ORDERS:
            raise UnpicklingError("refused: numpy.dtype with another state than a number's")
        if any(part is not None for part in state[2:5]):
            raise UnpicklingError("refused: numpy.dtype with fields")
        self._byte_order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type."""
        return np.dtype(self._byte_order + self._name)

    def __repr__(self) -> str:
        return f"StoredType({self.dtype.str!r})"


class StoredNumber:
    """Makes the number, truth value or text that a type and its bytes are; there are no objects of this class."""

    def __new__(cls, kind: object, data: object) -> Any:
        """Python's number. Raises UnpicklingError where the bytes are not those of one number."""
        if not isinstance(kind, StoredType) or not isinstance(data, bytes):
            raise UnpicklingError("refused: numpy.generic without its type and bytes")
        if len(data) != kind.dtype.itemsize:
            raise UnpicklingError(f"refused: numpy.generic of {kind.dtype.itemsize} bytes in {len(data)}")
        if kind.dtype.kind == "S":
            return data.rstrip(b"\0")
        if kind.dtype.kind == "U":
            return _text(data, kind.dtype.byteorder)
        return np.frombuffer(data, kind.dtype)[0].item()

    def __setstate__(self, state: object) -> None:
        """Never called: its presence keeps a pickle from changing this class."""


def _text(data: bytes, byte_order: str) -> str:
    """The text of a `U`, without numpy, which raises SystemError for what is no character."""
    is_little = byte_order == "<" or (byte_order == "=" and sys.byteorder == "little")
    try:
        text = data.decode("utf-32-le" if is_little else "utf-32-be", "surrogatepass")
    except UnicodeDecodeError as error:
        raise UnpicklingError(f"refused: numpy.str_ of what is no character, at byte {error.start}") from error
    return text.rstrip("\0")


NUMPY_NAMES: dict[str, type[Any]] = {
    "numpy.dtype": StoredType,
    "numpy.core.multiarray.scalar": StoredNumber,  # numpy 1
    "numpy._core.multiarray.scalar": StoredNumber,  # numpy 2
}
"""What answers to the names in such files."""
