"""Settings of `latency build` and `latency check`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfnas.core.cost import COSTS
from tfnas.core.errors import InputError, did_you_mean
from tfnas.core.space import SearchSpace
from tfnas.latency.default_table import shipped_table_paths
from tfnas.latency.table_contents import DTYPES, LARGEST_WIDTH, Conditions
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.space_file import space_names
from tfnas.spaces.zen.structure_spaces import structure_space_names
from tfnas.utils.text import parse_seconds, parse_share


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Settings of `latency build`."""

    out: str
    """JSON file to write; an existing one is replaced at the end. FILE.partial next to it stores the measurements so
    far; the same command resumes from it."""
    space: str = "digits"
    """Name of a built-in space, of MBConv blocks or of structures, or a YAML file."""
    cost: str = "ms"
    """Cost that the table contains: ms, which is measured, or macs or params, which are counted and exact."""
    image_size: int | None = None
    """Pixels along a side of the images; the space's own by default."""
    num_classes: int = 1000
    """Outputs of the classifier. The table serves any number from 1 to this, and to 1000 at least."""
    width_multiple: int | None = None
    """Measure only widths that are multiples of it; the space's own by default, which is any width."""
    runtime: str = "torch"
    """Runtime of the blocks: torch, torch-compile, onnxruntime, openvino, or another installed one."""
    device: str = "cpu"
    """Where to measure: cpu, cuda or cuda:N."""
    threads: int = 1
    """CPU threads to compute with, each bound to a core."""
    batch: int = 32
    """Images per batch: all milliseconds are per batch."""
    dtype: str = "float32"
    """Number type: float32, float64, bfloat16 or float16."""
    worker: str | None = None
    """Measure on a remote device: a command that runs Python there, such as "ssh pi@raspberrypi python3 -"."""
    worker_timeout: float = 60.0
    """Seconds to wait for the remote device's first answer; five times as long for each further one."""
    tolerance: str = "3%"
    """Measure more widths where the interpolation error exceeds this."""
    time_budget: str = "10min"
    """Stop measuring more widths after this time, such as 90s, 10min or 1h."""
    max_points: int | None = None
    """Maximum number of points. Default: 1/32 of all widths, or a quarter more than the minimum that every block needs,
    whichever is larger. Held-out points count; the minimum is always measured."""
    max_unit_macs: float | None = None
    """Of structures: leave out units of more multiply-accumulates than this, for an image, such as 2e9. Default: four
    times those of the space's initial network, and 256e6 at least."""
    rounds: int = 10
    """Measurements of every point, fewer if the time budget requires it; their median counts."""
    calls: int = 2
    """Timed calls per measurement."""
    held_out: int = 60
    """Number of random points that are measured but not used, to estimate the interpolation error."""
    seed: int = 0
    """Seed of the held-out points, the weights and the measurement order."""

    def __post_init__(self) -> None:
        if not self.out:
            raise InputError("--out must name a file")
        for name in ("num_classes", "batch", "threads", "rounds", "calls"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("image_size", "width_multiple", "max_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be 1 or more, got {value}")
        if self.max_unit_macs is not None and not 0 < self.max_unit_macs < math.inf:
            raise InputError(f"--max_unit_macs must be above 0, got {self.max_unit_macs}")
        if self.held_out < 0:
            raise InputError(f"--held_out must be 0 or more, got {self.held_out}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be 0 or more, and below 2^63, got {self.seed}")
        if self.num_classes > LARGEST_WIDTH:
            raise InputError(f"--num_classes must be {LARGEST_WIDTH} at most, got {self.num_classes}")
        if self.dtype not in DTYPES:
            raise InputError(f"--dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"--device must be cpu, cuda or cuda:N, got {self.device!r}")
        if self.cost not in COSTS:
            raise InputError(f"--cost must be one of {', '.join(COSTS)}, got {self.cost!r}")
        if not 0 < self.worker_timeout < math.inf:
            raise InputError(f"--worker_timeout must be above 0 s, got {self.worker_timeout}")
        parse_share("tolerance", self.tolerance)
        parse_seconds("time_budget", self.time_budget)

    def opened_space(self) -> SearchSpace:
        """The space of MBConv blocks at the image size and width multiple asked for. Raises InputError when there is
        none.
        """
        names = [*space_names(), *structure_space_names()]
        if self.space not in names and not os.path.isfile(self.space):  # noqa: PTH113 - a name may be too long for a path
            hint = did_you_mean(self.space, names)
            raise InputError(f"no space {self.space!r}: give one of {', '.join(names)} or a YAML file{hint}")
        return load_space(self.space, image_size=self.image_size, width_multiple=self.width_multiple)

    @property
    def conditions(self) -> Conditions:
        """Those to measure under."""
        return Conditions(
            runtime=self.runtime,
            device=self.device,
            batch_size=self.batch,
            threads=self.threads,
            dtype=self.dtype,
        )


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
    """Folder for the plot (NAME.check.png) and the numbers (NAME.check.json). Default: next to the table; for a table
    that ships with the package, the current folder."""
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
        parse_seconds("time_budget", self.time_budget)

    @property
    def table_path(self) -> Path:
        """Where the corrected table goes."""
        return Path(self.out or self.lookup_path)

    def result_path(self, suffix: str) -> Path:
        """Where the file of one of `SUFFIXES` goes: not among the package's own files, unless --out_dir says so."""
        table = self.table_path
        default = Path() if table.resolve() in shipped_table_paths() else table.parent
        return (default if self.out_dir is None else Path(self.out_dir)) / f"{table.name.removesuffix('.json')}{suffix}"
