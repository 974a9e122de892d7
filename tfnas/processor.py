"""What the processor is called, for figures that say where they were measured, and how much of it may be used."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from tfnas.errors import InputError


def processor_name() -> str:
    """The processor's name as Linux gives it, or what Python knows elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """The load average of the last minute; None where the system tells none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def check_threads(threads: int) -> None:
    """Raise InputError for more threads than cores: they would take turns, and what is timed is of no machine."""
    cores = usable_cores()
    if threads > cores:
        raise InputError(
            f"{threads} threads need a core each, but this process may use {cores} only: measure with fewer threads, "
            "or where there are more cores"
        )
