"""Settings of `latency close` and `latency certify`, one typed definition for Python, command line and YAML."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json
from tfnas.data.data_config import DataConfig
from tfnas.runs.named_network import named_flags
from tfnas.utils.text import parse_seconds, parse_share

CERTIFICATE_SUFFIX = ".certificate.json"
FORMAT = "tfnas-certificate"


@dataclass(frozen=True, kw_only=True)
class CloseConfig:
    """Settings of `latency close`."""

    model_path: str
    """A search's run directory, or architecture.json or model.config alone."""
    lookup_path: str | None = None
    """Latency table, which also determines the runtime and the measurement conditions. Default: the search's own."""
    target_lat: float | None = None
    """Target latency in milliseconds per batch. Default: the search's."""
    epsilon: str = "1%"
    """Tolerance around the target: 1% or 0.01."""
    iterations: int = 8
    """Maximum number of times that widths are fitted and the network is timed."""
    time_budget: str = "5min"
    """Total measurement time, such as 90s, 10min or 1h; a noisy machine needs more."""
    device: str | None = None
    """Which of several GPUs: cuda:N. Default: the first of the table's kind."""
    worker: str | None = None
    """Command that runs Python on the table's device, if that is another machine, such as "ssh pi@raspberrypi
    python3 -"."""
    worker_timeout: float = 60.0
    """Seconds to wait for the remote device's first answer; five times as long for each further one."""
    seed: int = 0
    """Seed of the random weights and images that are timed."""
    save: str = "runs"
    """Folder in which the new run directory is created."""
    note: str = ""
    """Suffix for the name of the run directory."""
    run_dir: str | None = None
    """The new run directory, instead of one under --save; it must be empty or not exist."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"--iterations must be 1 or more, got {self.iterations}")
        if not 0 < self.worker_timeout < math.inf:
            raise InputError(f"--worker_timeout must be above 0 s, got {self.worker_timeout}")
        _check_common(self.target_lat, self.epsilon, self.time_budget, self.seed)


@dataclass(frozen=True, kw_only=True)
class RefitRunConfig(CloseConfig, DataConfig):
    """Configuration stored in the new run directory: how it was made, and the search's data, on which it is trained."""

    space: str | None = None
    """The search's space."""
    searched_in: str | None = None
    """Run directory of the search whose weights can be inherited."""

    def __post_init__(self) -> None:
        CloseConfig.__post_init__(self)
        DataConfig.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class CertifyConfig:
    """Settings of `latency certify`."""

    file: tuple[str, ...] = ()
    """The file to time: an .onnx of `tfnas export`, a model.pt, or the run directory of a finished training run."""
    config_path: str | None = None
    """In place of FILE, an architecture with random weights: model.config, architecture.json or a structure's text."""
    arch: str | None = None
    """In place of FILE, a network of the zoo by its name, or an architecture by its text, with random weights. Needs
    --out."""
    target_lat: float | None = None
    """Target latency in milliseconds per batch; without one, the file is only timed."""
    epsilon: str = "1%"
    """Tolerance around the target, which also sets the precision of the measurement: 1% or 0.01."""
    batch: int = 1
    """Images per call."""
    threads: int = 1
    """CPU threads to compute with, each bound to a core."""
    device: str = "cpu"
    """Where to time a model.pt: cpu, cuda or cuda:N. ONNX files are timed on the CPU."""
    time_budget: str = "1min"
    """Maximum measurement time, such as 30s or 5min; a noisy machine needs more. At least 32 calls are made."""
    seed: int = 0
    """Seed of the images."""
    out: str | None = None
    """Where the certificate goes. Default: FILE.certificate.json."""

    def __post_init__(self) -> None:
        if len(self.file) + len(named_flags(self)) != 1:
            raise InputError(
                "give one FILE to certify, or --config_path or --arch in its place, "
                f"got {len(self.file) + len(named_flags(self))}; --help says more"
            )
        if self.arch is not None and self.out is None:
            raise InputError(
                f"--arch {self.arch} is not a file next to which the certificate could be written: give --out"
            )
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        _check_common(self.target_lat, self.epsilon, self.time_budget, self.seed)

    @property
    def model_path(self) -> None:
        """The file takes its place."""

    @property
    def subject(self) -> str:
        """What is timed, as it was named."""
        return self.file[0] if self.file else self.config_path or self.arch or ""

    def target(self, timed: Path) -> Path:
        """Path of the certificate of a file. Raises InputError if it is a folder, the file itself, or in no folder."""
        path = Path(f"{timed}{CERTIFICATE_SUFFIX}") if self.out is None else Path(self.out)
        if os.path.isdir(path):  # noqa: PTH112 - answers "no" where Path.is_dir raises
            raise InputError(f"--out is {path}, a folder; name a file in it")
        if not os.path.isdir(path.parent):  # noqa: PTH112
            raise InputError(f"--out is {path}, but there is no folder {path.parent}; make it first")
        if os.path.realpath(path) == os.path.realpath(timed):
            raise InputError(f"--out is {path}, the file that is to be certified; choose another name")
        if os.path.isfile(path) and not _is_certificate(path):  # noqa: PTH113
            raise InputError(
                f"--out is {path}, which is not a certificate and would be overwritten; choose another name"
            )
        return path


def _is_certificate(path: Path) -> bool:
    """Whether a file may be replaced: a certificate, or empty."""
    try:
        document = load_json(path.read_bytes() or b"{}")
    except (OSError, InputError):
        return False
    return document == {} or (isinstance(document, dict) and document.get("format") == FORMAT)


def _check_common(target_lat: float | None, epsilon: str, time_budget: str, seed: int) -> None:
    if target_lat is not None and not (math.isfinite(target_lat) and target_lat > 0):
        raise InputError(f"--target_lat must be a positive number of milliseconds, got {target_lat}")
    parse_share("epsilon", epsilon)
    parse_seconds("time_budget", time_budget)
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed must be 0 to 2**63 - 1, got {seed}")
