"""Messages to and from a worker: benchmark cases as payloads, and its responses, which are not trusted.

A payload's weights are drawn at random and then repeat themselves after some numbers. No processor computes faster for
that, but a megabyte of weights is sent as a few kilobytes. Every batch norm is scaled so that it gives numbers of about
1: in a fresh network they fade away from layer to layer, in half precision to nothing, and nothing proves nothing.

A response is one checked line after another; docs/worker.md shows them. Everything that does not fit raises
WorkerError, so that no number of it is used.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import zlib
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.onnx_graph import module_to_onnx
from tfnas.bench.timing import TimingSample
from tfnas.bench.worker import PROTOCOL, example_input, summary
from tfnas.bench.worker_process import WorkerError, WorkerProcess, printable
from tfnas.core.errors import InputError, RunFailed
from tfnas.latency.table_contents import Conditions
from tfnas.utils.devices import instruction_sets_among

_PERIOD = 509  # a prime, so that the rows of a matrix differ
_MEMORY_PER_INPUT = 4
_TOLERANCE = {"float32": 1e-3, "float16": 5e-2}
_SMALLEST_SCALE = {"float32": 1e-20, "float16": 1e-3}
_HELLO = b'{"tfnas_worker":'
_STRAY_BYTES = 2**16
_STRAY_LINES = 500
_LINE_BYTES = 2**14
_BYTES_PER_NUMBER = 32
_LONGEST_NAME = 200
_VERSIONS = ("python", "numpy", "onnxruntime")
_SLACK = 1.01
_SLACK_MS = 10.0


@dataclass(frozen=True, eq=False)
class Payload:
    """A benchmark case to send."""

    name: str
    document: dict[str, Any]
    """What the worker receives: `shape` of the input, and `onnx`, the compressed model in base64."""
    output: dict[str, Any]
    """What `worker.summary` says of its output here, in PyTorch."""
    memory_bytes: int
    """About what it takes on the device: its weights, and its activations estimated by the size of its input."""

    @classmethod
    def of(cls, case: BenchmarkCase, conditions: Conditions, seed: int) -> Payload:
        """Build, convert and run it; its weights and input depend on the seed only."""
        dtype: torch.dtype = getattr(torch, conditions.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            module = case.make().eval().requires_grad_(False)
        _repeat_weights(module)
        shape = (conditions.batch_size, case.channels, case.size, case.size)
        values: Tensor = torch.from_numpy(example_input(shape, conditions.dtype, seed))
        output = _scaling_output(module, values.float())
        model = module_to_onnx(module.to(dtype), values)
        text = base64.b64encode(zlib.compress(model)).decode("ascii")
        memory_bytes = len(model) + _MEMORY_PER_INPUT * values.nbytes
        return cls(case.name, {"shape": list(shape), "onnx": text}, summary(output.numpy()), memory_bytes)

    def is_output(self, document: dict[str, Any], dtype: str) -> bool:
        """Whether a worker's summary says the same output, as exactly as the number type can."""
        if document["shape"] != self.output["shape"]:
            return False
        rms = self.output["rms"]
        expected = np.array([rms, *self.output["values"]])
        with np.errstate(over="ignore"):
            difference = np.abs(expected - [document["rms"], *document["values"]])
        return bool(np.all(difference <= _TOLERANCE[dtype] * max(rms, _SMALLEST_SCALE[dtype])))


def _repeat_weights(module: nn.Module) -> None:
    with torch.no_grad():
        for weights in module.parameters():
            count = weights.numel()
            period = weights.flatten()[:_PERIOD]
            weights.copy_(period.repeat(-(-count // _PERIOD))[:count].view_as(weights))


def _scaling_output(module: nn.Module, values: Tensor) -> Tensor:
    """What the module gives once every batch norm in it has been scaled, by one factor each, to give about 1."""

    def scale(norm: nn.Module, _: object, output: Tensor) -> Tensor:
        factor = 1 / output.square().mean().sqrt().clamp(min=1e-12)
        for numbers in norm.parameters():
            numbers.mul_(factor)
        return output * factor

    hooks = [part.register_forward_hook(scale) for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        output: Tensor = module(values)
    for hook in hooks:
        hook.remove()
    return output


# ---- responses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Handshake:
    """The first answer: who the worker is."""

    device: str
    cores: int
    versions: dict[str, str]
    instruction_sets: tuple[str, ...] = ()


class WorkerResponses:
    """The answers of one process to one request, in their order."""

    def __init__(self, process: WorkerProcess, first_s: float, next_s: float) -> None:
        """`first_s` and `next_s` are how long the first and every other answer may take."""
        self._process, self._first_s, self._next_s = process, first_s, next_s
        self._total_ms = 0.0

    def handshake(self) -> Handshake:
        """The first answer. Other text before it (greetings of ssh, of a shell) is passed over, up to a limit.

        Raises InputError when a library is missing on the device.
        """
        stray_bytes = stray_lines = 0
        while True:
            line = self._process.line(self._first_s, _STRAY_BYTES, self._process.started)
            if line is None:
                raise WorkerError("it ended before its first answer")
            if line.startswith(_HELLO):
                return _checked_handshake(_object(line))
            stray_bytes, stray_lines = stray_bytes + len(line), stray_lines + 1
            if stray_bytes > _STRAY_BYTES or stray_lines > _STRAY_LINES:
                raise WorkerError("it prints too much unrelated output")

    def ready(self, reference: Payload, dtype: str) -> None:
        """The answer when the reference is open."""
        document = self._next({"ready"}, reference.name)
        _check_output(document["ready"], reference, dtype)

    def measurement(self, number: int, payload: Payload, calls: int, fresh_dtype: str | None) -> TimingSample:
        """The answer with this number: `calls` times of each. `fresh_dtype`: the payload is measured for the first time
        in this request, so that its output, of this number type, must be in it.
        """
        keys = {"visit", "own_ms", "reference_ms"} | ({"output"} if fresh_dtype else set())
        document = self._next(keys, payload.name, 2 * calls)
        if type(document["visit"]) is not int or document["visit"] != number:
            raise WorkerError(f"expected measurement {number}, got {_shown(document['visit'])}")
        own_ms, reference_ms = (_milliseconds(document[key], calls, key) for key in ("own_ms", "reference_ms"))
        if fresh_dtype:
            _check_output(document["output"], payload, fresh_dtype)
        self._total_ms += sum(own_ms) + sum(reference_ms)
        passed_ms = (time.monotonic() - self._process.started) * 1e3
        if self._total_ms > _SLACK * passed_ms + _SLACK_MS:
            raise WorkerError(
                f"it reports {self._total_ms:.0f} ms of measurements, but only {passed_ms:.0f} ms have elapsed"
            )
        return TimingSample(own_ms, reference_ms)

    def done(self, count: int) -> None:
        """The last answer, and nothing after it but empty lines, up to a limit; its end must come in time."""
        document = self._next({"done"}, "the end")
        if type(document["done"]) is not int or document["done"] != count:
            raise WorkerError(f"it reports {_shown(document['done'])} measurements, not {count}")
        since, empty = time.monotonic(), 0
        while (line := self._process.line(self._next_s, _LINE_BYTES, since)) is not None:
            if line.strip():
                raise WorkerError(f"it sends output after its last answer: {_shown(line.decode('utf-8', 'replace'))}")
            empty += 1
            if empty > _STRAY_LINES:
                raise WorkerError("it sends output after its last answer: empty lines without an end")

    def _next(self, keys: set[str], name: str, numbers: int = 0) -> dict[str, Any]:
        line = self._process.line(self._next_s, _LINE_BYTES + _BYTES_PER_NUMBER * numbers)
        if line is None:
            raise WorkerError("it ended before its last answer")
        document = _object(line)
        if set(document) == {"refused"}:
            raise RunFailed(
                f"the worker cannot run {printable(name)}: {_shown(document['refused'], 600)}; "
                "is onnxruntime on the device old (python3 -m pip install -U onnxruntime), or its memory full?"
            )
        if set(document) != keys:
            raise WorkerError(f"expected an answer with {', '.join(sorted(keys))}, got {_shown(line.decode())}")
        return document


def _checked_handshake(document: dict[str, Any]) -> Handshake:
    if type(document["tfnas_worker"]) is not int or document["tfnas_worker"] != PROTOCOL:
        raise WorkerError(f"it uses protocol version {_shown(document['tfnas_worker'])}, not {PROTOCOL}")
    if set(document) == {"tfnas_worker", "cannot", "why", "executable"}:
        raise InputError(
            f"--worker: Python on the device cannot {_shown(document['cannot'])} ({_shown(document['why'])}); install "
            f"them on the device: {_shown(document['executable'])} -m pip install numpy onnxruntime"
        )
    if set(document) - {"flags"} != {"tfnas_worker", "device", "cores", *_VERSIONS}:
        raise WorkerError("its first answer is incomplete")
    device, cores = document["device"], document["cores"]
    versions = {name: document[name] for name in _VERSIONS}
    for text in (device, *versions.values()):
        if type(text) is not str or not text or not text.isprintable() or len(text) > _LONGEST_NAME:
            raise WorkerError(f"its first answer names a device or a version {_shown(text)}")
    if type(cores) is not int or cores < 1:
        raise WorkerError(f"it says that it has {_shown(cores)} cores")
    flags = document.get("flags", "")
    if type(flags) is not str or len(flags) > _LINE_BYTES:
        raise WorkerError(f"it says that its processor's flags are {_shown(flags)}")
    return Handshake(device, cores, versions, instruction_sets_among(flags))


def _object(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, NaN, a number of thousands of digits
        document = None
    if type(document) is not dict:
        raise WorkerError(f"a line that is not an answer: {_shown(line.decode('utf-8', 'replace'))}")
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _milliseconds(values: object, count: int, key: str) -> tuple[float, ...]:
    if type(values) is not list or len(values) != count:
        raise WorkerError(f"{key} must be a list of {count} numbers, not {_shown(values)}")
    for value in values:
        if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
            raise WorkerError(f"{key} must be positive, finite numbers, got {_shown(value)}")
    return tuple(map(float, values))


def _check_output(document: object, payload: Payload, dtype: str) -> None:
    if type(document) is not dict or set(document) != set(payload.output):
        raise WorkerError("its output summary is malformed")
    numbers = [document["rms"], *document["values"]] if type(document["values"]) is list else []
    if len(numbers) != 1 + len(payload.output["values"]) or any(type(number) is not float for number in numbers):
        raise WorkerError("its output summary is malformed")
    if not payload.is_output(document, dtype):
        raise WorkerError(
            f"{printable(payload.name)} gives a different output on the device than here, so a different block was "
            "timed"
        )


def _shown(value: object, longest: int = 80) -> str:
    return printable(value if type(value) is str else repr(value), longest)
