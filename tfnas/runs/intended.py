"""What a network was made to take: target, batch and threads, as its run and the table of its search say."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from tfnas.core.errors import InputError
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.structure_table import load_table
from tfnas.runs.architecture_source import read_summary

_MOST_MS = 1e9


@dataclass(frozen=True, kw_only=True)
class Intended:
    """Milliseconds for a batch of so many images on so many threads, in a runtime."""

    target_ms: float
    batch_size: int
    threads: int
    runtime: str

    @property
    def flags(self) -> str:
        """As `tfnas latency certify` takes it."""
        threads = "" if self.threads == 1 else f" --threads {self.threads}"
        return f"--batch {self.batch_size}{threads} --target_lat {self.target_ms:g}"

    @property
    def words(self) -> str:
        """For people: `15 ms for a batch of 32 on 1 thread in torch`."""
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        return f"{self.target_ms:g} ms for a batch of {self.batch_size} on {threads} in {self.runtime}"


def intended_for(model_path: Path, architecture: str) -> Intended | None:
    """What the network of a run directory, or of a file in one, was made to take on a CPU of this kind.

    None where there is no run or one of another architecture (in its text form), where it does not say, and where the
    table that it names is not at hand any more or has another content.
    """
    try:
        summary = read_summary(model_path if os.path.isdir(model_path) else model_path.parent)  # noqa: PTH112
        if summary.get("architecture") != architecture:
            return None
        path, target_ms = summary.get("lookup_path"), summary.get("target_ms")
        if not isinstance(path, str) or isinstance(target_ms, bool) or not isinstance(target_ms, int | float):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LatencyTableWarning)
            table = load_table(path)
    except InputError:
        return None
    measured = table.contents.measurement
    if measured is None or not table.cost.is_time or measured.device_kind != "cpu" or measured.worker:
        return None
    if table.fingerprint != summary.get("table_fingerprint") or not 0 < target_ms < _MOST_MS:
        return None
    return Intended(
        target_ms=float(target_ms),
        batch_size=measured.batch_size,
        threads=measured.threads,
        runtime=measured.runtime,
    )
