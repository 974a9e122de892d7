"""Settings of `latency check`."""

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
    """Settings of `latency check`."""

    lookup_path: str
    """The latency table."""
    num_networks: int = 20
    """Number of random whole networks to time. A correction is fitted on half of them and validated on the others;
    fewer than 6 are only compared."""
    space: str | None = None
    """Name of a built-in space, or a YAML file, for tables of a space that is not built in."""
    correct: bool = True
    """Store the fitted correction in the table if it reduces the error on the held-out networks. With false the table
    is never changed."""
    out: str | None = None
    """File of the corrected table. Default: the table itself."""
    out_dir: str | None = None
    """Folder for the plot (NAME.check.png) and the numbers (NAME.check.json). Default: next to the table."""
    level: Literal["now", "table"] = "now"
    """now: fit at the machine's present speed; table: divide by the present speed of single blocks relative to the
    table, for a machine that is only temporarily slower or faster."""
    device: str | None = None
    """Which of several GPUs: cuda:N. Default: the first of the table's kind."""
    worker: str | None = None
    """Command that runs Python on the table's device, if that is another machine, such as "ssh pi@raspberrypi
    python3 -"."""
    worker_timeout: float = 60.0
    """Seconds to wait for the remote device's first answer; five times as long for each further one."""
    rounds: int = 10
    """Measurements of every network, fewer (but at least 3) if the time budget requires it; their median counts."""
    calls: int = 2
    """Timed calls per measurement."""
    time_budget: str = "2min"
    """Start no further round that would end after this time, such as 90s, 10min or 1h."""
    seed: int = 0
    """Seed of the networks, the choice of those to fit on, their weights and the measurement order."""

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
