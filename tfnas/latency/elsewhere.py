"""Where a table's figures hold, against the machine at hand: what to say when the two are not the same."""

from __future__ import annotations

from collections.abc import Sequence

from tfnas.invocation import command_line
from tfnas.latency.contents import Measurement
from tfnas.latency.table import LatencyTable
from tfnas.processor import processor_name

SEARCHED_RUNTIME = "torch"
SEARCHED_DTYPE = "float32"


def other_machine(table: LatencyTable) -> str | None:
    """That a table was measured on another processor or GPU than this machine has; None where it was not.

    None too for a table that does not say, that was counted, or that a worker measured: it is of another device on
    purpose.
    """
    measurement = table.contents.measurement
    if measurement is None or not table.cost.is_time or measurement.worker:
        return None
    here = devices_here(measurement.device_kind)
    if measurement.device in here:
        return None
    return f"the table was measured on {measurement.device}, this machine has {' and '.join(here) or 'no GPU'}"


def devices_here(kind: str) -> tuple[str, ...]:
    """The names of this machine's processor (`cpu`) or of its GPUs (`cuda`), each once."""
    if kind != "cuda":
        return (processor_name(),)
    import torch

    return tuple(sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}))


def search_remarks(table: LatencyTable, *, shipped: bool, space: Sequence[str]) -> tuple[str, ...]:
    """What a search should say about where its table's milliseconds hold; nothing where they hold here.

    Where no table was named, so that one came along (`shipped`), the advice is to measure one. `space` holds the flags
    that name the space.
    """
    remarks, elsewhere = [], other_machine(table)
    if elsewhere is not None and shipped:
        remarks.append(
            f"warning: {elsewhere}, where the network will take other milliseconds than the target: measure a table "
            f"here ({command_line('latency build', *space, '--out', 'FILE')}) and give it with --lookup_path FILE"
        )
    elif elsewhere is not None:
        remarks.append(f"warning: {elsewhere}: the target holds there")
    measurement = table.contents.measurement
    if measurement is not None and table.cost.is_time:
        how = _differing(measurement, SEARCHED_RUNTIME, SEARCHED_DTYPE)
        if measurement.device_kind == "cpu" and measurement.threads > 1:
            how.append(f"{measurement.threads} threads")
        if how:
            remarks.append(f"warning: the target holds in {', '.join(how)}, not in PyTorch with float32 on one thread")
    return tuple(remarks)


def other_conditions(measurement: Measurement, device: str, threads: int) -> list[str]:
    """What of a table's conditions is not as in PyTorch in float32 on a device, with so many threads on a processor."""
    words = _differing(measurement, SEARCHED_RUNTIME, SEARCHED_DTYPE)
    if measurement.device_kind == "cpu" and measurement.threads != threads:
        words.append(f"{measurement.threads} thread{'' if measurement.threads == 1 else 's'}")
    return words if measurement.device == device else [f"on {measurement.device}", *words]


def _differing(measurement: Measurement, runtime: str, dtype: str) -> list[str]:
    pairs = ((measurement.runtime, runtime), (measurement.dtype, dtype))
    return [found for found, wanted in pairs if found != wanted]
