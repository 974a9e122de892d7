"""The TF-NAS authors' latency tables, `latency_gpu.pkl` and `latency_cpu.pkl`, read without trusting them.

Such a file is a pickled OrderedDict: `base` -> milliseconds, and for every block key an OrderedDict of width ->
milliseconds. Plain dicts, whole numbers and numpy's numbers stand for the same, in any pickle protocol. Only the pickle
instructions that this takes are admitted, and only classes that make nothing else; nothing in it can run.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NoReturn

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short
from tfnas.latency.table_contents import LARGEST_WIDTH, MOST_MS, BasePart, Curve, TableContents
from tfnas.spaces.mbconv.table_keys import KEY_PATTERN
from tfnas.utils.pickles import NUMPY_NAMES, PICKLE_ERRORS, NestedTooDeeply, Nesting

PICKLE_STARTS = (b"\x80", b"}", b"(d", b"ccollections\nOrderedDict\n")
"""How such files begin: with a protocol from 2 on, and before that with what makes a dict."""

_OTHER = "a pickle of another kind than the TF-NAS authors' tables"
_DAMAGED = "it is damaged, truncated, or was not written by pickle.dump; copy it, or save it, again"
_LONGEST_WORDS = 100
_INSTRUCTIONS = (
    {"PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"GLOBAL", "STACK_GLOBAL", "EMPTY_TUPLE", "TUPLE", "REDUCE", "EMPTY_DICT", "SETITEM", "SETITEMS"}
    | {"BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"}
    | {"TUPLE1", "TUPLE2", "TUPLE3", "NEWTRUE", "NEWFALSE", "NONE", "SHORT_BINBYTES", "BUILD"}  # numpy's numbers
    | {"PUT", "GET", "DICT", "INT", "LONG", "FLOAT", "UNICODE"}  # the oldest protocols'
    | {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # Python 2's
)
_STORES = ("PUT", "LONG_BINPUT")  # at any place
_WANTED = "a table is a dict of numbers, {'base': ms, block: {width: ms}}"
_ONE_NUMBER = "save one number, float(ms), for every width"
_KINDS = {
    **dict.fromkeys(("EMPTY_LIST", "LIST", "EMPTY_SET", "FROZENSET"), f"a list or a set: {_ONE_NUMBER}"),
    **dict.fromkeys(("PERSID", "BINPERSID"), f"a reference to something outside the file: {_WANTED}"),
}
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


class LatencyTableWarning(UserWarning):
    """Something in a latency table is known to be wrong, at widths that may never be asked for."""


class _StoredBytes:
    """Makes the bytes that a pickle of protocol 2 holds as text; there are no objects of this class."""

    def __new__(cls, text: object, encoding: object) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("bytes must be text in latin1")
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        """Never called: its presence keeps a pickle from changing this class."""


class _TableUnpickler(pickle.Unpickler):
    """Knows OrderedDict and what numpy's numbers are made of, and nothing else."""

    _KNOWN: Mapping[str, Any] = {"collections.OrderedDict": OrderedDict, "_codecs.encode": _StoredBytes, **NUMPY_NAMES}

    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name in self._KNOWN:
            return self._KNOWN[full_name]
        if full_name in _ARRAYS:
            raise InputError(f"{_OTHER}: it contains an array: {_ONE_NUMBER}")
        raise InputError(
            f"{_OTHER}: it contains {_plain(module)}.{_plain(name)}, which is refused: save dict(...) of other kinds "
            "of dict, and float(ms) of other numbers"
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise InputError(f"{_OTHER}: it refers to {short(pid)}, outside the file")


def read_authors_table(data: bytes) -> TableContents:
    """The table in the bytes of such a file. Warns (LatencyTableWarning) of negative entries.

    Raises InputError for any other pickle, before anything in it takes effect.
    """
    pairs = _check_instructions(data)
    try:
        document = _TableUnpickler(io.BytesIO(data)).load()
    except InputError:
        raise
    except PICKLE_ERRORS as error:
        raise InputError(f"{_OTHER}: {_damage(error)}") from error
    if not _is_dict(document) or "base" not in document:
        raise InputError(f"{_OTHER}: it must be an OrderedDict (or dict) with a number `base` and every block")
    rows = {id(entries): len(entries) for entries in document.values() if isinstance(entries, dict)}
    if len(document) + sum(rows.values()) < pairs:
        raise InputError(f"{_OTHER}: duplicate block or width")
    base_ms = document.pop("base")
    if type(base_ms) not in (int, float) or not 0 < base_ms <= MOST_MS:
        raise InputError(f"{_OTHER}: base must be above 0 ms, and {MOST_MS:g} at most, got {short(base_ms)}")
    if not document:
        raise InputError(f"{_OTHER}: it contains no blocks")
    curves = {_checked_key(key): _read_curve(key, entries) for key, entries in document.items()}
    _warn_of_negative_entries(curves)
    return TableContents(base={"base": BasePart("base", float(base_ms), 0.0)}, curves=curves, measurement=None)


def _check_instructions(data: bytes) -> int:
    """How many entries the pickle's dicts are given.

    Refuses every pickle instruction that a dictionary of numbers does not need, deep nesting, and huge places to store
    at.
    """
    nesting, end = Nesting(), -1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of backslashes in names, which are refused later
            for opcode, argument, place in pickletools.genops(data):
                end = place or 0
                if opcode.name not in _INSTRUCTIONS:
                    raise InputError(f"{_OTHER}: it contains {_KINDS.get(opcode.name, f'other things: {_WANTED}')}")
                if opcode.name in _STORES and int(argument or 0) > len(data):  # memory for so many would be reserved
                    raise InputError(f"{_OTHER}: {_DAMAGED}")
                nesting.take(opcode, argument)
    except InputError:
        raise
    except PICKLE_ERRORS as error:
        raise InputError(f"{_OTHER}: {_damage(error)}") from error
    if end + 1 < len(data):
        raise InputError(f"{_OTHER}: it has trailing data after byte {end + 1}")
    return nesting.pairs


def _damage(error: Exception) -> str:
    """What is wrong with the whole file."""
    if isinstance(error, NestedTooDeeply):
        return f"it is {error}"
    kind = re.fullmatch(r"refused: (numpy\..*)", str(error))
    if kind is not None:
        return f"it contains a number of an unsupported kind ({_plain(kind[1])}): save float(ms), and int(width)"
    return _DAMAGED


def _is_dict(value: object) -> bool:
    """Whether it is a dict, plain or ordered, and nothing besides: a pickle may give an OrderedDict attributes."""
    return type(value) is dict or (type(value) is OrderedDict and not vars(value))


def _plain(words: object) -> str:
    """Words out of a file, without what a terminal would act on, and no longer than a line."""
    return ascii(str(words))[1:-1][:_LONGEST_WORDS]


def _checked_key(key: object) -> str:
    if type(key) is not str or KEY_PATTERN.fullmatch(key) is None:
        raise InputError(
            f"{_OTHER}: {short(key)} is not a block; expected "
            "MBInvertedResBlock_{input size}_{in}_{se}_{out}_k{k}_s{s}_{act}"
        )
    return key


def _read_curve(key: str, entries: object) -> Curve:
    if not isinstance(entries, dict) or not _is_dict(entries) or not entries:
        raise InputError(f"{_OTHER}: {key} must be an OrderedDict of width -> ms, or a dict")
    for width, ms in entries.items():
        if type(width) is not int or not 1 <= width <= LARGEST_WIDTH:
            raise InputError(f"{_OTHER}: {key} has the width {short(width)}; expected 1 to {LARGEST_WIDTH}")
        if type(ms) not in (int, float) or not abs(ms) <= MOST_MS:
            raise InputError(f"{_OTHER}: {key} at width {width} must be a finite number of ms, got {short(ms)}")
    widths = tuple(sorted(entries))
    return Curve(widths, tuple(float(entries[width]) for width in widths), (0.0,) * len(widths))


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
            f"the latency table has {len(faults)} non-positive entries, for instance {ms:.4g} ms for {key} "
            f"at width {width}; a search that needs one of them will stop with an error",
            LatencyTableWarning,
            stacklevel=4,
        )
