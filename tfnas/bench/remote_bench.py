"""A remote device as a bench: blocks are sent to a command's standard input, and times come back in lines.

Every request is a process of its own (`ssh pi@raspberrypi python3 -` reads its program to the end before it runs any of
it, and then nothing more), so cases are sent many at a time.
"""

from __future__ import annotations

import json
import shlex
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.timing import TimingSample
from tfnas.bench.worker_messages import Handshake, Payload, WorkerResponses
from tfnas.bench.worker_process import WorkerError, WorkerProcess, printable
from tfnas.core.errors import InputError, RunFailed
from tfnas.latency.table_contents import Conditions

TIMEOUT_S = 60.0
_NEXT_FACTOR = 5
_MOST_CASES = 256
_MOST_MEMORY_BYTES = 256 * 2**20
_PIECE = 4000
_TRIES = 8
_PAUSE_S = 2.0
_TO_SAY_WHY_S = 2.0
_HINTS = {
    64: "the command started a shell; it must end in python3 -",
    126: "the command or its python3 cannot be run",
    127: "there is no such command, or no python3 on the device",
    255: "ssh failed to connect",
}


class WorkerWarning(UserWarning):
    """The worker failed once, and what was lost is measured again."""


class WorkerBench:
    """The device behind a command, which ends in a Python that reads its program from standard input."""

    def __init__(
        self,
        command: str,
        conditions: Conditions,
        reference: BenchmarkCase,
        seed: int = 0,
        timeout_s: float = TIMEOUT_S,
        *,
        every_call: bool = False,
    ) -> None:
        """Asks the device who it is. `timeout_s`: how long a first answer may take; the others have five times as long.

        `every_call` as for `LocalBench`: without it, a preempted call is repeated.

        Raises InputError for conditions that a worker cannot have, a command that cannot be started, or a Python on the
        device without numpy or onnxruntime, and RunFailed when no worker answers.
        """
        _check_conditions(conditions)
        if not timeout_s > 0:
            raise InputError(f"--worker_timeout must be above 0 s, got {timeout_s}")
        self.conditions = conditions
        self._arguments = _split(command)
        self._reference_case, self._seed, self._timeout_s = reference, seed, timeout_s
        self._tries = 1 if every_call else _TRIES
        self._payloads: dict[str, Payload] = {}
        self._failures = 0
        self._handshake: Handshake | None = None
        while self._handshake is None:
            self._greet()
        if conditions.threads > self._handshake.cores:
            raise InputError(f"--threads is {conditions.threads}, but the worker has {self._handshake.cores} cores")

    @property
    def device_name(self) -> str:
        """The board or processor of the device."""
        assert self._handshake is not None
        return self._handshake.device

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """Of the device's processor, for vector arithmetic."""
        assert self._handshake is not None
        return self._handshake.instruction_sets

    @property
    def versions(self) -> Mapping[str, str]:
        """Of Python, numpy and onnxruntime on the device."""
        assert self._handshake is not None
        return self._handshake.versions

    def measure(self, cases: Sequence[BenchmarkCase], order: Sequence[int], calls: int) -> Iterator[TimingSample]:
        """See `Bench`; a case is loaded for one batch: as many measurements as fit into the memory of a small device.

        A failure costs a warning (WorkerWarning), and what has not been answered is asked for again. Raises RunFailed
        when two processes fail without completing a measurement in between, and when the device cannot run a case.
        """
        answered = 0
        while answered < len(order):
            batch = self._batch(cases, order[answered:])
            with WorkerProcess(self._arguments, program(self._request(batch, calls))) as process:
                responses, made = WorkerResponses(process, self._timeout_s, _NEXT_FACTOR * self._timeout_s), 0
                try:
                    self._check_handshake(responses.handshake())
                    responses.ready(self._reference, self.conditions.dtype)
                    for payload, is_fresh in _with_freshness(batch):
                        sample = responses.measurement(
                            made, payload, calls, self.conditions.dtype if is_fresh else None
                        )
                        made, answered = made + 1, answered + 1
                        self._failures = 0  # now, because whoever asks may stop here
                        yield sample
                    responses.done(made)
                    self._end(process)
                except WorkerError as error:
                    self._failed(process, error, is_harmless=made == len(batch))

    @property
    def _reference(self) -> Payload:
        return self._payload(self._reference_case)

    def _payload(self, case: BenchmarkCase) -> Payload:
        if case.name not in self._payloads:
            self._payloads[case.name] = Payload.of(case, self.conditions, self._seed)
        return self._payloads[case.name]

    def _batch(self, cases: Sequence[BenchmarkCase], order: Sequence[int]) -> list[Payload]:
        """The first measurements of an order that one process is asked for."""
        batch: list[Payload] = []
        known: dict[str, int] = {}
        for index in order:
            payload = self._payload(cases[index])
            known[payload.name] = payload.memory_bytes
            if batch and (len(known) > _MOST_CASES or sum(known.values()) > _MOST_MEMORY_BYTES):
                break
            batch.append(payload)
        return batch

    def _request(self, batch: Sequence[Payload], calls: int) -> dict[str, object]:
        unique = {payload.name: payload for payload in batch}
        places = {name: place for place, name in enumerate(unique)}
        return {
            "threads": self.conditions.threads,
            "dtype": self.conditions.dtype,
            "seed": self._seed,
            "calls": calls,
            "tries": self._tries,
            "reference": self._reference.document,
            "blocks": [payload.document for payload in unique.values()],
            "order": [places[payload.name] for payload in batch],
        }

    def _greet(self) -> None:
        """Ask for nothing but the first answer."""
        with WorkerProcess(self._arguments, program({"order": []})) as process:
            responses, handshake = WorkerResponses(process, self._timeout_s, _NEXT_FACTOR * self._timeout_s), None
            try:
                handshake = responses.handshake()
                responses.done(0)
                self._end(process)
                self._failures = 0
            except WorkerError as error:
                self._failed(process, error, is_harmless=handshake is not None)
            self._handshake = handshake

    def _check_handshake(self, handshake: Handshake) -> None:
        assert self._handshake is not None
        if (handshake.device, handshake.versions) != (self._handshake.device, self._handshake.versions):
            now, before = _named(handshake), _named(self._handshake)
            raise WorkerError(f"a different device answered than before: {now} instead of {before}")

    def _end(self, process: WorkerProcess) -> None:
        status = process.finish(_TO_SAY_WHY_S)
        if status:
            raise WorkerError(f"it ended with exit status {status}")

    def _failed(self, process: WorkerProcess, error: WorkerError, *, is_harmless: bool) -> None:
        """Warn of a first failure, and raise RunFailed for a second without an answer in between.

        Harmless: every answer had arrived.
        """
        status = process.finish(_TO_SAY_WHY_S)
        end = f" (exit status {status})" if status and f"status {status}" not in str(error) else ""
        hint = f"; {_HINTS[status]}" if status in _HINTS else ""
        hint += "; Python on the device is older than 3.8" if "SyntaxError" in process.last_words else ""
        words = f"; last lines of standard error: {process.last_words}" if process.last_words else ""
        happened = f"the worker ({printable(self._arguments[0])}) failed: {error}{end}{hint}{words}"
        if is_harmless:
            self._failures = 0
            warnings.warn(f"{happened}; all answers had been received", WorkerWarning, stacklevel=3)
            return
        self._failures += 1
        if self._failures > 1:
            raise RunFailed(
                f"{happened}; this was the second failure in a row. Check that the --worker command runs without "
                'prompting and ends in python3 -, and that python3 -c "import numpy, onnxruntime" works on the device; '
                "a slow device needs a longer --worker_timeout"
            ) from error
        warnings.warn(f"{happened}; retrying", WorkerWarning, stacklevel=3)
        time.sleep(_PAUSE_S)


def program(request: Mapping[str, object]) -> bytes:
    """The text that the device's Python is sent: the worker, and the call that hands it the request.

    The first line is a plain string to Python; a shell that is started by mistake exits there, and runs nothing else.
    """
    worker = files("tfnas.bench").joinpath("worker.py").read_text("utf-8")
    text = json.dumps(request)
    pieces = [json.dumps(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE)]
    lines = [
        '"exit" "64"',
        'names = {"__name__": "tfnas_worker"}',
        f'exec(compile({json.dumps(worker)}, "tfnas_worker", "exec"), names)',
        'names["serve"]([',
        *(f"{piece}," for piece in pieces),
        "])",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _check_conditions(conditions: Conditions) -> None:
    for name, value, known in (
        ("runtime", conditions.runtime, ("onnxruntime",)),
        ("device", conditions.device_kind, ("cpu",)),
        ("dtype", conditions.dtype, ("float32", "float16")),
    ):
        if value not in known:
            raise InputError(f"--worker measures with the {name} {' or '.join(known)} only, not with {value!r}")


def _split(command: str) -> list[str]:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--worker: the command has an error: {error}") from error
    if not arguments:
        raise InputError('--worker: give a command, such as "ssh pi@raspberrypi python3 -"')
    return arguments


def _with_freshness(batch: Sequence[Payload]) -> Iterator[tuple[Payload, bool]]:
    seen: set[str] = set()
    for payload in batch:
        yield payload, payload.name not in seen
        seen.add(payload.name)


def _named(handshake: Handshake) -> str:
    return f"{handshake.device} with onnxruntime {handshake.versions['onnxruntime']}"
