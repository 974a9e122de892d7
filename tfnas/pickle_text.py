"""What a pickle would build, told from its instructions before anything reads it.

Python's own readers are not made for containers that lie in one another without a limit: one message is wanted for
them, as for any other file that cannot be read. So the nesting is counted first, without making anything.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from typing import IO, Any

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
