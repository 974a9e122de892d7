"""The TF-NAS authors' latency tables, `latency_gpu.pkl` and `latency_cpu.pkl`, read without trusting them.

Such a file is a pickled OrderedDict: `base` -> milliseconds, and for every block key an OrderedDict of width ->
milliseconds. Only the pickle instructions that this takes are admitted, and only the one class; nothing in it can run.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import warnings
from collections import OrderedDict
from typing import Any, NoReturn

from tfnas.errors import InputError
from tfnas.latency.contents import LARGEST_WIDTH, BasePart, Curve, TableContents
from tfnas.latency.files.fields import short
from tfnas.latency.keys import KEY_PATTERN

_OTHER = "a pickle of another kind than the TF-NAS authors' tables"
_LONGEST_WORDS = 100
_INSTRUCTIONS = (
    {"PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"GLOBAL", "STACK_GLOBAL", "EMPTY_TUPLE", "TUPLE", "REDUCE", "SETITEM", "SETITEMS"}
    | {"BINFLOAT", "BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE"}
)


class LatencyTableWarning(UserWarning):
    """Something in a latency table is known to be wrong, at widths that may never be asked for."""


class _TableUnpickler(pickle.Unpickler):
    """Knows `collections.OrderedDict` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise InputError(f"{_OTHER}: it names {_plain(module)}.{_plain(name)}, which is refused")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InputError(f"{_OTHER}: it refers to the outside object {short(pid)}, which is refused")


def read_authors_table(data: bytes) -> TableContents:
    """The table in the bytes of such a file. Warns (LatencyTableWarning) of negative entries.

    Raises InputError for any other pickle, before anything in it takes effect.
    """
    _check_instructions(data)
    try:
        document = _TableUnpickler(io.BytesIO(data)).load()
    except InputError:
        raise
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"{_OTHER}: {_plain(error)}") from error
    if type(document) is not OrderedDict or type(document.get("base")) is not float:
        raise InputError(f"{_OTHER}: it must be an OrderedDict with a number `base` and one entry for every block")
    base = document.pop("base")
    if not (math.isfinite(base) and base > 0):
        raise InputError(f"{_OTHER}: base must be above 0 ms, got {base}")
    if not document:
        raise InputError(f"{_OTHER}: it holds no blocks")
    curves = {_checked_key(key): _read_curve(key, entries) for key, entries in document.items()}
    _warn_of_negative_entries(curves)
    return TableContents(base={"base": BasePart("base", base, 0.0)}, curves=curves, measurement=None)


def _check_instructions(data: bytes) -> None:
    """Refuse every pickle instruction that a dictionary of numbers does not need, and huge places to store at."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of backslashes in names, which are refused later
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name not in _INSTRUCTIONS:
                    raise InputError(f"{_OTHER}: it contains the instruction {opcode.name}, which is refused")
                place = int(argument or 0) if opcode.name == "LONG_BINPUT" else 0
                if place > len(data):  # the unpickler would reserve memory for that many objects
                    raise InputError(f"{_OTHER}: it stores an object at place {place}, which is refused")
    except InputError:
        raise
    except (ValueError, IndexError) as error:
        raise InputError(f"{_OTHER}: {_plain(error)}") from error


def _plain(words: object) -> str:
    """Words out of a file, without what a terminal would act on, and no longer than a line."""
    return ascii(str(words))[1:-1][:_LONGEST_WORDS]


def _checked_key(key: object) -> str:
    if type(key) is not str or KEY_PATTERN.fullmatch(key) is None:
        raise InputError(
            f"{_OTHER}: {short(key)} is no block; expected "
            "MBInvertedResBlock_{input size}_{in}_{se}_{out}_k{k}_s{s}_{act}"
        )
    return key


def _read_curve(key: str, entries: object) -> Curve:
    if type(entries) is not OrderedDict or not entries:
        raise InputError(f"{_OTHER}: {key} must hold an OrderedDict of width -> ms")
    for width, ms in entries.items():
        if type(width) is not int or not 1 <= width <= LARGEST_WIDTH:
            raise InputError(f"{_OTHER}: {key} has the width {short(width)}; expected 1 to {LARGEST_WIDTH}")
        if type(ms) is not float or not math.isfinite(ms):
            raise InputError(f"{_OTHER}: {key} at width {width} must be a finite number of ms, got {short(ms)}")
    widths = tuple(sorted(entries))
    return Curve(widths, tuple(entries[width] for width in widths), (0.0,) * len(widths))


def _warn_of_negative_entries(curves: dict[str, Curve]) -> None:
    faults = [
        (key, width, ms)
        for key, curve in curves.items()
        for width, ms in zip(curve.widths, curve.ms, strict=True)
        if ms <= 0
    ]
    if faults:
        key, width, ms = faults[0]
        warnings.warn(
            f"the latency table has {len(faults)} entries that are not above 0 ms, for instance {ms:.4g} ms for {key} "
            f"at width {width}; a search that needs one of them will stop with an error",
            LatencyTableWarning,
            stacklevel=4,
        )
