"""Benches, which time many benchmark cases interleaved, on this machine or a remote one; and how one is opened.

What makes naive figures wrong on a CPU, and what is done here about it:

* The C library returns large freed tensors to the system after every call, depending on what the process did before,
  and the page faults make the same block two or three times slower. `prime_allocator` ends that.
* A block called again and again finds its weights in the cache, a block inside a network does not. Before every timed
  call another block (the reference) runs and the input is rewritten, as the layer before would have done.
* A machine is not equally fast from minute to minute. Every call is normalised to the adjacent reference call.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tfnas.bench.benchmark_cases import BenchmarkCase, block_case
from tfnas.bench.runtime import Runtime, open_runtime
from tfnas.bench.timing import TimingSample, call_ms, steady
from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError, RunFailed
from tfnas.core.space import SearchSpace
from tfnas.latency.structure_table import AnyTable
from tfnas.latency.table_contents import Conditions, Measurement
from tfnas.utils.devices import check_threads, device_name, instruction_sets, named_device
from tfnas.utils.text import command_line

_REFERENCE_CALLS_FIRST = 3
_TRIES = 8
_REST_SECONDS = 0.002


class Bench(Protocol):
    """Where cases are timed."""

    @property
    def conditions(self) -> Conditions:
        """Runtime, batch, threads and number type."""
        ...

    @property
    def device_name(self) -> str:
        """The processor or GPU."""
        ...

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """Of the processor, for arithmetic on vectors; none for a GPU, and where they are not known."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what computes there."""
        ...

    def measure(self, cases: Sequence[BenchmarkCase], order: Sequence[int], calls: int) -> Iterator[TimingSample]:
        """Measure cases in this order of their indices, with so many timed calls each; yields a sample for each.

        Every case is prepared when it is first measured, and stays prepared until the last measurement.
        """
        ...


@dataclass(frozen=True, eq=False)
class _Prepared:
    call: Callable[[], object]
    example_input: Tensor


class LocalBench:
    """This machine, in one of the runtimes. `reference` is what every call is held against.

    A preempted call is repeated, because a table is of the device and not of its other programs; with `every_call` it
    counts as it is, because a latency that is promised includes them.
    """

    def __init__(
        self, conditions: Conditions, reference: BenchmarkCase, seed: int = 0, *, every_call: bool = False
    ) -> None:
        """Raises InputError when the runtime is not installed, the device is not there, or has too few cores."""
        self.conditions = conditions
        self._device = named_device(conditions.device)
        if self._device.type == "cpu":
            check_threads(conditions.threads)
        self._runtime: Runtime = open_runtime(conditions)
        self._reference, self._seed = reference, seed
        self._tries = 1 if every_call else _TRIES
        self._inputs: dict[tuple[int, int], Tensor] = {}
        self._ready: dict[str, _Prepared] = {}

    @property
    def device_name(self) -> str:
        """The processor or GPU."""
        return device_name(self._device)

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """Of the processor, for arithmetic on vectors; none for a GPU."""
        return () if self._device.type == "cuda" else instruction_sets()

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the runtime's libraries."""
        return self._runtime.versions

    def measure(self, cases: Sequence[BenchmarkCase], order: Sequence[int], calls: int) -> Iterator[TimingSample]:
        """See `Bench`. The threads are fixed, and on a CPU bound to as many cores, during a measurement."""
        if not {case.name for case in cases} & set(self._ready):
            self._ready.clear()
        prepared = self._ready
        with self._steady():
            reference = self._prepare(self._reference)
            for _ in range(_REFERENCE_CALLS_FIRST):
                self._call_ms(reference)
        for index in order:
            with self._steady():
                name = cases[index].name
                if name not in prepared:
                    prepared[name] = self._prepare(cases[index])
                sample = self._sample(prepared[name], reference, calls)
            yield sample

    @contextmanager
    def _steady(self) -> Iterator[None]:
        threads = self.conditions.threads
        advice = f"out of memory with {self.conditions.batch_size} images at once: give a smaller --batch"
        try:
            with steady(threads):
                yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise RunFailed(advice) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # on the CPU PyTorch has no class of its own for it
                raise RunFailed(advice) from error
            raise

    def _prepare(self, case: BenchmarkCase) -> _Prepared:
        """The case's module and input on the device; weights and inputs depend on the seed only."""
        dtype: torch.dtype = getattr(torch, self.conditions.dtype)
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seed)
            module = case.make().eval().requires_grad_(False).to(self._device, dtype)
            shape = case.channels, case.size
            if shape not in self._inputs:
                values = torch.randn(self.conditions.batch_size, shape[0], shape[1], shape[1])
                values = values.to(self._device, dtype)
                self._inputs[shape] = values.contiguous(memory_format=self._runtime.memory_format)
            example_input = self._inputs[shape]
            return _Prepared(self._runtime.prepare(module, example_input), example_input)

    def _sample(self, own: _Prepared, reference: _Prepared, calls: int) -> TimingSample:
        """The reference and the case, called in turn."""
        self._call_ms(own)  # compiles what the library compiles on first use and may have dropped since the last time
        pairs = [self._undisturbed_pair_ms(own, reference) for _ in range(calls)]
        return TimingSample(tuple(own_ms for own_ms, _ in pairs), tuple(reference_ms for _, reference_ms in pairs))

    def _undisturbed_pair_ms(self, own: _Prepared, reference: _Prepared) -> tuple[float, float]:
        """Milliseconds of the case and of the reference before it, from an attempt that was not preempted, if possible.

        Another program that gets the core in between shows as a context switch that this process did not ask for.
        """
        fewest, best = math.inf, (0.0, 0.0)
        for attempt in range(self._tries):
            time.sleep(attempt * _REST_SECONDS)  # the system gives a process that has rested a whole slice of time
            before = _switches()
            reference_ms = self._call_ms(reference)
            own.example_input.mul_(1)  # written anew, in place, so that it is as warm as a layer's output would be
            own_ms = self._call_ms(own)
            switches = _switches() - before
            if switches < fewest:
                fewest, best = switches, (own_ms, reference_ms)
            if switches == 0:
                break
        return best

    def _call_ms(self, prepared: _Prepared) -> float:
        return call_ms(prepared.call, self._runtime.synchronise)


def _switches() -> int:
    """How often the threads of this process have lost their core to others so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def reference_case(measured: SearchSpace | Architecture) -> BenchmarkCase:
    """The block that is run before every timed call, and that every call is held against: the middle one.

    Of a space it is the first operation at its usual width; of an architecture without blocks, the second stem.
    """
    if isinstance(measured, SearchSpace):
        number = len(measured.blocks) // 2
        return block_case(measured.initial_blocks[number][0], measured.blocks[number].input_size)
    if not measured.blocks:
        return block_case(measured.second_stem, -(-measured.image_size // measured.first_stem.stride))
    middle = measured.blocks[len(measured.blocks) // 2]
    return block_case(middle.block, middle.input_size)


def table_conditions(table: AnyTable, device: str | None = None) -> Conditions:
    """The conditions a table was measured under; `device` says which of several devices of its kind to use.

    Raises InputError for a table that does not say, that was counted and not measured, or of another kind of device.
    """
    measurement = table.contents.measurement
    if not table.cost.is_time:
        raise InputError(
            f"{table.source} was counted ({table.cost.name}) and is exact: there is nothing to measure it against"
        )
    if measurement is None:
        raise InputError(
            f"{table.source} does not say how it was measured, so nothing can be measured as it was; "
            f"measure a table: {command_line('latency build', '--space', 'NAME', '--out', 'FILE')}"
        )
    conditions = _conditions(measurement, device or measurement.device_kind)
    if conditions.device_kind != measurement.device_kind:
        raise InputError(
            f"--device is {device}, but {table.source} was measured on {measurement.device_kind}: omit --device"
        )
    return conditions


def _conditions(measurement: Measurement, device: str) -> Conditions:
    return Conditions(
        runtime=measurement.runtime,
        device=device,
        batch_size=measurement.batch_size,
        threads=measurement.threads,
        dtype=measurement.dtype,
    )


@contextmanager
def as_measured(table: AnyTable) -> Iterator[None]:
    """Say of what is missing here, an InputError of the body, that it is a table that asks for it and no flag."""
    try:
        yield
    except InputError as error:
        raise InputError(f"nothing can be timed as {table.source} was measured: {error}") from error


def open_bench(
    conditions: Conditions,
    reference: BenchmarkCase,
    worker: str | None = None,
    seed: int = 0,
    worker_timeout_s: float = 60.0,
    *,
    every_call: bool = False,
) -> Bench:
    """This machine, or with `worker` (a command such as "ssh pi@raspberrypi python3 -") the device behind it.

    `worker_timeout_s` is how long the worker's first answer may take, and a fifth of how long every other may.
    `every_call` counts calls that another program has disturbed, too.

    Raises InputError when the runtime is not installed there, or the device is not there, and RunFailed when the worker
    does not answer.
    """
    if worker is None:
        return LocalBench(conditions, reference, seed, every_call=every_call)
    from tfnas.bench.remote_bench import WorkerBench

    return WorkerBench(worker, conditions, reference, seed, worker_timeout_s, every_call=every_call)
