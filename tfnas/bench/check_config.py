"""What `latency check` can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfnas.core.errors import InputError
from tfnas.utils.text import seconds_of

SUFFIXES = (".check.json", ".check.png")
FEWEST_NETWORKS = 6


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Which table to hold against whole networks, and what to do with what is found."""

    lookup_path: str
    """The latency table."""
    num_networks: int = 20
    """Random whole networks to time. A correction is fitted to half of them and judged by the others; fewer than 6 are
    only compared."""
    space: str | None = None
    """Name of a built-in space, or a YAML file, for tables of a space that is not built in."""
    correct: bool = True
    """Store the fitted correction in the table, where it makes the error on the other networks smaller. With false the
    table stays as it is, whatever is found."""
    out: str | None = None
    """Write the corrected table here. Default: in place of the table itself."""
    out_dir: str | None = None
    """Folder for the plot (NAME.check.png) and the numbers (NAME.check.json). Default: beside the table."""
    level: Literal["now", "table"] = "now"
    """Milliseconds as the machine takes them now, or divided by what blocks of the table take more now than when it was
    measured: for a machine that is only for the moment slower or faster."""
    device: str | None = None
    """Which of several GPUs: cuda:N. Default: the first of the table's kind."""
    worker: str | None = None
    """Command that runs Python on the table's device, where that is another machine, such as "ssh pi@raspberrypi
    python3 -"."""
    worker_timeout: float = 60.0
    """Seconds that the other device may take before its first answer, five times as long before each further one."""
    rounds: int = 10
    """Visits to every network, fewer where the time budget asks for it, but 3 at least; the median counts."""
    calls: int = 2
    """Timed calls in each visit."""
    time_budget: str = "2min"
    """Begin no further round that would end after this time, such as 90s, 10min or 1h."""
    seed: int = 0
    """Draws the networks, which of them a correction is fitted to, their weights and the order of visits."""

    def __post_init__(self) -> None:
        for name in ("num_networks", "rounds", "calls"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if self.seed < 0:
            raise InputError(f"--seed must be 0 or more, got {self.seed}")
        if self.device is not None and self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"--device must be cpu, cuda or cuda:N, got {self.device!r}")
        if self.level not in ("now", "table"):
            raise InputError(f"--level must be now or table, got {self.level!r}")
        if not 0 < self.worker_timeout < math.inf:
            raise InputError(f"--worker_timeout must be above 0 s, got {self.worker_timeout}")
        if self.out is not None and not self.correct:
            raise InputError(f"--out {self.out} is for the corrected table, which --correct false does not write")
        seconds_of("time_budget", self.time_budget)

    @property
    def table_path(self) -> Path:
        """Where the corrected table goes."""
        return Path(self.out or self.lookup_path)

    def result_path(self, suffix: str) -> Path:
        """Where the file of one of `SUFFIXES` goes."""
        table = self.table_path
        folder = table.parent if self.out_dir is None else Path(self.out_dir)
        return folder / f"{table.name.removesuffix('.json')}{suffix}"
