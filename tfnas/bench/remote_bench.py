"""Another device as a bench: blocks go out over a command's standard input, and times come back in lines.

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
from tfnas.bench.payloads import Parcel
from tfnas.bench.remote_process import FarProcess, WorkerFault, printable
from tfnas.bench.timing import TimingSample
from tfnas.bench.worker_answers import Answers, Hello
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
    64: "the command has started a shell: it must end in python3 -",
    126: "the command or its python3 cannot be run",
    127: "there is no such command, or no python3 there",
    255: "ssh has not come through",
}


class WorkerWarning(UserWarning):
    """The far side failed once, and what was lost is being asked for again."""


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

        `every_call` as for `LocalBench`: without it, a call that lost its core there is made again.

        Raises InputError for conditions that a worker cannot have, a command that cannot be started, or a Python there
        without numpy or onnxruntime, and RunFailed when no worker answers.
        """
        _check_conditions(conditions)
        if not timeout_s > 0:
            raise InputError(f"--worker_timeout must be above 0 s, got {timeout_s}")
        self.conditions = conditions
        self._arguments = _split(command)
        self._reference_case, self._seed, self._timeout_s = reference, seed, timeout_s
        self._tries = 1 if every_call else _TRIES
        self._parcels: dict[str, Parcel] = {}
        self._failures = 0
        self._hello: Hello | None = None
        while self._hello is None:
            self._greet()
        if conditions.threads > self._hello.cores:
            raise InputError(f"--threads is {conditions.threads}, but the worker has {self._hello.cores} cores")

    @property
    def device_name(self) -> str:
        """The board or processor there."""
        assert self._hello is not None
        return self._hello.device

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """Of the processor there, for arithmetic on vectors."""
        assert self._hello is not None
        return self._hello.instruction_sets

    @property
    def versions(self) -> Mapping[str, str]:
        """Of Python, numpy and onnxruntime there."""
        assert self._hello is not None
        return self._hello.versions

    def measure(self, cases: Sequence[BenchmarkCase], order: Sequence[int], calls: int) -> Iterator[TimingSample]:
        """See `Bench`; a case is kept while a batch lasts: as many visits as fit into the memory of a small device.

        A failure costs a warning (WorkerWarning), and what has not been answered is asked for again. Raises RunFailed
        when two processes fail and no visit has been answered in between, and when the far side cannot run a case.
        """
        answered = 0
        while answered < len(order):
            batch = self._batch(cases, order[answered:])
            with FarProcess(self._arguments, program(self._request(batch, calls))) as far:
                answers, made = Answers(far, self._timeout_s, _NEXT_FACTOR * self._timeout_s), 0
                try:
                    self._check_hello(answers.hello())
                    answers.ready(self._reference, self.conditions.dtype)
                    for parcel, is_fresh in _with_freshness(batch):
                        visit = answers.visit(made, parcel, calls, self.conditions.dtype if is_fresh else None)
                        made, answered = made + 1, answered + 1
                        self._failures = 0  # now, because whoever asks may stop here
                        yield visit
                    answers.done(made)
                    self._end(far)
                except WorkerFault as fault:
                    self._failed(far, fault, is_harmless=made == len(batch))

    @property
    def _reference(self) -> Parcel:
        return self._parcel(self._reference_case)

    def _parcel(self, case: BenchmarkCase) -> Parcel:
        if case.name not in self._parcels:
            self._parcels[case.name] = Parcel.of(case, self.conditions, self._seed)
        return self._parcels[case.name]

    def _batch(self, cases: Sequence[BenchmarkCase], order: Sequence[int]) -> list[Parcel]:
        """The first visits of an order that one process is asked for."""
        batch: list[Parcel] = []
        known: dict[str, int] = {}
        for index in order:
            parcel = self._parcel(cases[index])
            known[parcel.name] = parcel.memory_bytes
            if batch and (len(known) > _MOST_CASES or sum(known.values()) > _MOST_MEMORY_BYTES):
                break
            batch.append(parcel)
        return batch

    def _request(self, batch: Sequence[Parcel], calls: int) -> dict[str, object]:
        unique = {parcel.name: parcel for parcel in batch}
        places = {name: place for place, name in enumerate(unique)}
        return {
            "threads": self.conditions.threads,
            "dtype": self.conditions.dtype,
            "seed": self._seed,
            "calls": calls,
            "tries": self._tries,
            "reference": self._reference.document,
            "blocks": [parcel.document for parcel in unique.values()],
            "order": [places[parcel.name] for parcel in batch],
        }

    def _greet(self) -> None:
        """Ask for nothing but the first answer."""
        with FarProcess(self._arguments, program({"order": []})) as far:
            answers, hello = Answers(far, self._timeout_s, _NEXT_FACTOR * self._timeout_s), None
            try:
                hello = answers.hello()
                answers.done(0)
                self._end(far)
                self._failures = 0
            except WorkerFault as fault:
                self._failed(far, fault, is_harmless=hello is not None)
            self._hello = hello

    def _check_hello(self, hello: Hello) -> None:
        assert self._hello is not None
        if (hello.device, hello.versions) != (self._hello.device, self._hello.versions):
            raise WorkerFault(f"another device answers than before: {_named(hello)}, not {_named(self._hello)}")

    def _end(self, far: FarProcess) -> None:
        status = far.finish(_TO_SAY_WHY_S)
        if status:
            raise WorkerFault(f"it ended with exit status {status}")

    def _failed(self, far: FarProcess, fault: WorkerFault, *, is_harmless: bool) -> None:
        """Warn of a first failure, and raise RunFailed for a second without an answer in between.

        Harmless: every answer was there.
        """
        status = far.finish(_TO_SAY_WHY_S)
        end = f" (exit status {status})" if status and f"status {status}" not in str(fault) else ""
        hint = f"; {_HINTS[status]}" if status in _HINTS else ""
        hint += "; a Python older than 3.8 is there" if "SyntaxError" in far.last_words else ""
        words = f"; the last it said on standard error: {far.last_words}" if far.last_words else ""
        happened = f"the worker ({printable(self._arguments[0])}) failed: {fault}{end}{hint}{words}"
        if is_harmless:
            self._failures = 0
            warnings.warn(f"{happened}; all its answers had come", WorkerWarning, stacklevel=3)
            return
        self._failures += 1
        if self._failures > 1:
            raise RunFailed(
                f"{happened}; it was the second failure in a row. Check that the command of --worker comes through "
                'without asking anything and ends in python3 -, and that python3 -c "import numpy, onnxruntime" works '
                "there; a slow device needs a longer --worker_timeout"
            ) from fault
        warnings.warn(f"{happened}; asking once more", WorkerWarning, stacklevel=3)
        time.sleep(_PAUSE_S)


def program(request: Mapping[str, object]) -> bytes:
    """The text that a far Python is sent: the worker, and the call that hands it the request.

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


def _with_freshness(batch: Sequence[Parcel]) -> Iterator[tuple[Parcel, bool]]:
    seen: set[str] = set()
    for parcel in batch:
        yield parcel, parcel.name not in seen
        seen.add(parcel.name)


def _named(hello: Hello) -> str:
    return f"{hello.device} with onnxruntime {hello.versions['onnxruntime']}"
