"""Opening the bench that a table was, or is to be, measured on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tfnas.bench.benchmark_cases import BenchmarkCase, block_case
from tfnas.bench.local_bench import Bench, LocalBench
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import Conditions, Measurement
from tfnas.utils.text import command_line


def reference_of(space: SearchSpace) -> BenchmarkCase:
    """The block that every call is held against: the middle one, as the space's first operation at its usual width."""
    place, operation = space.blocks[len(space.blocks) // 2], space.operations[0]
    return block_case(space.block(place, operation, space.initial_width(place, operation)), place.input_size)


def conditions_of(table: LatencyTable, device: str | None = None) -> Conditions:
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
def as_measured(table: LatencyTable) -> Iterator[None]:
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
