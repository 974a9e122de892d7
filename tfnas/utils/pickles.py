"""Pickles that are not to be trusted: how deep they nest, and numpy's numbers in them without calling numpy.

Python's own readers are not made for containers that lie in one another without a limit: one message is wanted for
them, as for any other file that cannot be read. So the nesting is counted first, without making anything.

A pickled numpy number is a call of `numpy.dtype`, one of its `__setstate__`, and a call of `scalar` with type and
bytes. Given other arguments these make objects and structures of any size, and change types that the whole process
shares. So the names are answered by classes of this file, which take the types of numbers, truth values and text only,
with exactly the bytes that they have, and give Python's own.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import sys
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np

MOST_NESTED = 100
"""How deep containers may lie in one another. Checkpoints with the states of optimizers have about ten."""

PICKLE_ERRORS: tuple[type[Exception], ...] = (
    *(pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError),
    *(RuntimeError, AssertionError, OverflowError, MemoryError, struct.error),
)
"""What readers of pickles raise where one is damaged or forged (RecursionError is a RuntimeError)."""

_MARK = pickletools.markobject
_STORES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_FETCHES = {"GET", "BINGET", "LONG_BINGET"}
_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_PAIRS = {"SETITEM", "SETITEMS", "DICT"}


class NestedTooDeeply(pickle.UnpicklingError):
    """Containers lie in one another deeper than `MOST_NESTED`."""


class Nesting:
    """Follows a pickle's instructions: how deep its containers lie in one another, and how many entries dicts get.

    What is filled after it was put into another container counts there as it was: for tuples, which alone have hashes
    that go down, the depth is exact, as nothing can be added to them.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.protocol = 0
        self._stack: list[list[int] | None] = []  # depths, in cells because several places may hold one; None: a mark
        self._memory: dict[int, list[int]] = {}

    def take(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """One instruction, as `pickletools.genops` gives it.

        Raises NestedTooDeeply, or UnpicklingError or LookupError where the instructions make no sense.
        """
        if opcode.name == "PROTO":
            self.protocol = int(argument)
        elif opcode.name in _STORES:
            cell = self._pop()
            self._memory[len(self._memory) if argument is None else int(argument)] = cell
            self._stack.append(cell)
        elif opcode.name in _FETCHES:
            self._stack.append(self._memory[int(argument)])
        elif opcode.name == "MARK":
            self._stack.append(None)
        else:
            self._apply(opcode)

    def _apply(self, opcode: pickletools.OpcodeInfo) -> None:
        before = opcode.stack_before
        if not before:
            self._stack += [[0] for _ in opcode.stack_after]
            return
        contents: list[list[int]] = []
        alone = len(before)
        if _MARK in before:
            alone = before.index(_MARK)
            while self._stack and (cell := self._stack.pop()) is not None:
                contents.append(cell)
        self.pairs += (len(contents) // 2 if _MARK in before else 1) if opcode.name in _PAIRS else 0
        contents += [self._pop() for _ in range(alone)]
        filled = contents.pop() if opcode.name in _FILLS else [0]  # the container lies below what goes into it
        filled[0] = max([filled[0], *(cell[0] + 1 for cell in contents)])
        if filled[0] > MOST_NESTED:
            raise NestedTooDeeply(f"nested more than {MOST_NESTED} deep")
        self._stack += [filled] * len(opcode.stack_after)

    def _pop(self) -> list[int]:
        cell = self._stack.pop() if self._stack else None
        if cell is None:
            raise pickle.UnpicklingError("it takes what was not put there")
        return cell


def check_nesting(file: IO[bytes]) -> int:
    """The protocol of the pickle at the file's place, which is behind it afterwards.

    Raises NestedTooDeeply; where it is damaged, one of `PICKLE_ERRORS`.
    """
    nesting = Nesting()
    for opcode, argument, _ in pickletools.genops(file):
        nesting.take(opcode, argument)
    return nesting.protocol


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
