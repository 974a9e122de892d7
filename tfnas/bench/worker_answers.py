"""What a worker says, believed only as far as it is what was asked for: one checked line after another.

docs/worker.md shows the lines. Everything that does not fit raises WorkerFault, so that no number of it is used.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from tfnas.bench.payloads import Parcel
from tfnas.bench.remote_process import FarProcess, WorkerFault, printable
from tfnas.bench.timing import TimingSample
from tfnas.bench.worker import PROTOCOL
from tfnas.core.errors import InputError, RunFailed
from tfnas.utils.devices import instruction_sets_among

_HELLO = b'{"tfnas_worker":'
_STRAY_BYTES = 2**16
_STRAY_LINES = 500
_LINE_BYTES = 2**14
_BYTES_PER_NUMBER = 32
_LONGEST_NAME = 200
_VERSIONS = ("python", "numpy", "onnxruntime")
_SLACK = 1.01
_SLACK_MS = 10.0


@dataclass(frozen=True)
class Hello:
    """Who answers."""

    device: str
    cores: int
    versions: dict[str, str]
    instruction_sets: tuple[str, ...] = ()


class Answers:
    """The answers of one process to one request, in their order."""

    def __init__(self, far: FarProcess, first_s: float, next_s: float) -> None:
        """`first_s` and `next_s` are how long the first and every other answer may take."""
        self._far, self._first_s, self._next_s = far, first_s, next_s
        self._total_ms = 0.0

    def hello(self) -> Hello:
        """The first answer. Other text before it (greetings of ssh, of a shell) is passed over, up to a limit.

        Raises InputError when a library is missing there.
        """
        stray_bytes = stray_lines = 0
        while True:
            line = self._far.line(self._first_s, _STRAY_BYTES, self._far.started)
            if line is None:
                raise WorkerFault("it ended before its first answer")
            if line.startswith(_HELLO):
                return _hello(_object(line))
            stray_bytes, stray_lines = stray_bytes + len(line), stray_lines + 1
            if stray_bytes > _STRAY_BYTES or stray_lines > _STRAY_LINES:
                raise WorkerFault("it prints much text that is no answer")

    def ready(self, reference: Parcel, dtype: str) -> None:
        """The answer when the reference is open."""
        document = self._next({"ready"}, reference.name)
        _check_output(document["ready"], reference, dtype)

    def visit(self, number: int, parcel: Parcel, calls: int, fresh_dtype: str | None) -> TimingSample:
        """The answer with this number: `calls` times of each. `fresh_dtype`: the parcel is visited for the first time
        in this request, so that its output, of this number type, must come along.
        """
        keys = {"visit", "own_ms", "reference_ms"} | ({"output"} if fresh_dtype else set())
        document = self._next(keys, parcel.name, 2 * calls)
        if type(document["visit"]) is not int or document["visit"] != number:
            raise WorkerFault(f"visit {number} was to come, not {_shown(document['visit'])}")
        own_ms, reference_ms = (_milliseconds(document[key], calls, key) for key in ("own_ms", "reference_ms"))
        if fresh_dtype:
            _check_output(document["output"], parcel, fresh_dtype)
        self._total_ms += sum(own_ms) + sum(reference_ms)
        passed_ms = (time.monotonic() - self._far.started) * 1e3
        if self._total_ms > _SLACK * passed_ms + _SLACK_MS:
            raise WorkerFault(f"it claims to have timed {self._total_ms:.0f} ms, but {passed_ms:.0f} ms have passed")
        return TimingSample(own_ms, reference_ms)

    def done(self, visits: int) -> None:
        """The last answer, and nothing after it but empty lines, up to a limit; its end must come in time."""
        document = self._next({"done"}, "the end")
        if type(document["done"]) is not int or document["done"] != visits:
            raise WorkerFault(f"it says that it has made {_shown(document['done'])} visits, not {visits}")
        since, empty = time.monotonic(), 0
        while (line := self._far.line(self._next_s, _LINE_BYTES, since)) is not None:
            if line.strip():
                raise WorkerFault(f"it goes on after its last answer: {_shown(line.decode('utf-8', 'replace'))}")
            empty += 1
            if empty > _STRAY_LINES:
                raise WorkerFault("it goes on after its last answer: empty lines without an end")

    def _next(self, keys: set[str], name: str, numbers: int = 0) -> dict[str, Any]:
        line = self._far.line(self._next_s, _LINE_BYTES + _BYTES_PER_NUMBER * numbers)
        if line is None:
            raise WorkerFault("it ended before its last answer")
        document = _object(line)
        if set(document) == {"refused"}:
            raise RunFailed(
                f"the worker cannot run {printable(name)}: {_shown(document['refused'], 600)}; "
                "is onnxruntime there old (python3 -m pip install -U onnxruntime), or its memory full?"
            )
        if set(document) != keys:
            raise WorkerFault(f"an answer with {', '.join(sorted(keys))} was to come, not {_shown(line.decode())}")
        return document


def _hello(document: dict[str, Any]) -> Hello:
    if type(document["tfnas_worker"]) is not int or document["tfnas_worker"] != PROTOCOL:
        raise WorkerFault(f"it speaks version {_shown(document['tfnas_worker'])} of the protocol, not {PROTOCOL}")
    if set(document) == {"tfnas_worker", "cannot", "why", "executable"}:
        raise InputError(
            f"--worker: the Python there cannot {_shown(document['cannot'])} ({_shown(document['why'])}); install them "
            f"there: {_shown(document['executable'])} -m pip install numpy onnxruntime"
        )
    if set(document) - {"flags"} != {"tfnas_worker", "device", "cores", *_VERSIONS}:
        raise WorkerFault("its first answer does not say what it must")
    device, cores = document["device"], document["cores"]
    versions = {name: document[name] for name in _VERSIONS}
    for text in (device, *versions.values()):
        if type(text) is not str or not text or not text.isprintable() or len(text) > _LONGEST_NAME:
            raise WorkerFault(f"its first answer names a device or a version {_shown(text)}")
    if type(cores) is not int or cores < 1:
        raise WorkerFault(f"it says that it has {_shown(cores)} cores")
    flags = document.get("flags", "")
    if type(flags) is not str or len(flags) > _LINE_BYTES:
        raise WorkerFault(f"it says that its processor's flags are {_shown(flags)}")
    return Hello(device, cores, versions, instruction_sets_among(flags))


def _object(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, NaN, a number of thousands of digits
        document = None
    if type(document) is not dict:
        raise WorkerFault(f"a line that is no answer: {_shown(line.decode('utf-8', 'replace'))}")
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _milliseconds(values: object, count: int, key: str) -> tuple[float, ...]:
    if type(values) is not list or len(values) != count:
        raise WorkerFault(f"{key} must be a list of {count} numbers, not {_shown(values)}")
    for value in values:
        if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
            raise WorkerFault(f"{key} must be positive, finite numbers, but there is {_shown(value)}")
    return tuple(map(float, values))


def _check_output(document: object, parcel: Parcel, dtype: str) -> None:
    if type(document) is not dict or set(document) != set(parcel.output):
        raise WorkerFault("its output is not described as it must be")
    numbers = [document["rms"], *document["values"]] if type(document["values"]) is list else []
    if len(numbers) != 1 + len(parcel.output["values"]) or any(type(number) is not float for number in numbers):
        raise WorkerFault("its output is not described as it must be")
    if not parcel.is_output(document, dtype):
        raise WorkerFault(f"{printable(parcel.name)} gives another output there than here, so it was not that one")


def _shown(value: object, longest: int = 80) -> str:
    return printable(value if type(value) is str else repr(value), longest)
