"""Measuring the latency table of a space on this machine.

    python -m tfnas latency build --space digits --batch 32 --out latency_pkl/digits_cpu.json

Every block is measured alone, at a few widths of every operation; whole networks are timed between them, and the table
says how far the sums are from them.
"""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

import tfnas
from tfnas.architecture import Architecture
from tfnas.errors import InputError
from tfnas.latency.contents import BasePart, Curve, Measurement, TableContents
from tfnas.latency.keys import BASE_PARTS, base_keys, shallowest_architecture
from tfnas.latency.loads import LoadMaker, places_to_measure, random_architectures
from tfnas.latency.measure import FairTimings, Timing, time_fairly, torch_threads
from tfnas.latency.processor import processor_name
from tfnas.latency.table import LatencyTable
from tfnas.latency.table_file import check_writable
from tfnas.nn import Network
from tfnas.space import IMAGE_CHANNELS, SearchSpace

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(kw_only=True)
class BuildConfig:
    """What to measure, where and how long."""

    out: str
    """JSON file to write."""
    space: str = "digits"
    """Name of a built-in space, or a YAML file."""
    image_size: int | None = None
    """Pixels along a side of the images; the space's own by default."""
    num_classes: int = 10
    """Outputs of the classifier; a search with another number may use the table all the same."""
    batch: int = 32
    """Images per batch: all milliseconds are per batch."""
    threads: int = 1
    """CPU threads to compute with."""
    dtype: str = "float32"
    """Number type: float32, float64, bfloat16 or float16."""
    device: str = "cpu"
    """Where to measure: cpu, cuda or cuda:N."""
    widths_per_block: int = 5
    """Widths measured for every operation of every block, its smallest and largest among them."""
    rounds: int = 20
    """Times that everything is visited; the median over all of them counts."""
    calls: int = 2
    """Timed calls in each visit."""
    networks: int = 6
    """Random whole networks timed in the same rounds, to see how far sums of blocks are from them."""
    seed: int = 0
    """Draws the random networks and the order of visits."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "batch", "threads", "rounds", "calls"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.image_size is not None and self.image_size < 1:
            raise InputError(f"image_size must be 1 or more, got {self.image_size}")
        if self.networks < 0:
            raise InputError(f"networks must be 0 or more, got {self.networks}")
        if self.widths_per_block < 2:
            raise InputError(f"widths_per_block must be 2 or more, got {self.widths_per_block}")
        if self.dtype not in _DTYPES:
            raise InputError(f"dtype must be one of {', '.join(_DTYPES)}, got {self.dtype!r}")
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda"):
            raise InputError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device is {self.device!r}, but PyTorch sees no GPU here")


def build_table(config: BuildConfig) -> LatencyTable:
    """Measure the table, write it to `config.out` and return it. Progress goes to stderr.

    Raises InputError for a wrong space and RunFailed if the file cannot be written.
    """
    space = tfnas.space(config.space)
    if config.image_size is not None:
        space = space.at(config.image_size)
    check_writable(Path(config.out))
    places = dict(places_to_measure(space, config.widths_per_block))
    networks = random_architectures(space, config.networks, config.num_classes, config.seed)
    base = shallowest_architecture(space, config.num_classes)
    loads = LoadMaker(config.batch, _DTYPES[config.dtype], config.device, config.seed)
    parts = loads.base_parts(base)
    blocks = [loads.block(block, size) for block, size in places.values()]
    wholes = [loads.load(Network(architecture), IMAGE_CHANNELS, space.image_size) for architecture in networks]
    everything = [*parts, *blocks, *wholes]
    with torch_threads(config.threads), Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"measuring {space.name}", total=config.rounds * len(everything))
        timings = time_fairly(
            everything,
            blocks[len(blocks) // 2],
            rounds=config.rounds,
            calls=config.calls,
            seed=config.seed,
            on_visit=lambda: progress.advance(task),
        )
    split = len(parts) + len(blocks)
    contents = TableContents(
        base=_base(base, timings.loads[: len(parts)]),
        curves=_curves(list(places), timings.loads[len(parts) : split]),
        measurement=None,
    )
    sums = [LatencyTable(contents).architecture_ms(architecture) for architecture in networks]
    ratios = [timing.median_ms / total for timing, total in zip(timings.loads[split:], sums, strict=True)]
    measurement = _measurement(config, space, _procedure(config, timings, ratios))
    table = LatencyTable(
        TableContents(contents.base, contents.curves, measurement), source=f"latency table {config.out}"
    )
    table.save(Path(config.out))
    return table


def _base(architecture: Architecture, timings: tuple[Timing, ...]) -> dict[str, BasePart]:
    keys = base_keys(architecture)
    return {
        name: BasePart(keys[name], timing.median_ms, timing.spread_ms)
        for name, timing in zip(BASE_PARTS, timings, strict=True)
    }


def _curves(points: list[tuple[str, int]], timings: tuple[Timing, ...]) -> dict[str, Curve]:
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for (key, width), timing in zip(points, timings, strict=True):
        rows.setdefault(key, []).append((width, timing.median_ms, timing.spread_ms))
    curves = {}
    for key, row in rows.items():
        widths, ms, spreads = zip(*sorted(row), strict=True)
        curves[key] = Curve(widths, ms, spreads)
    return curves


def _measurement(config: BuildConfig, space: SearchSpace, procedure: str) -> Measurement:
    kind = config.device.partition(":")[0]
    return Measurement(
        space=space.name,
        space_fingerprint=space.fingerprint,
        image_size=space.image_size,
        device=torch.cuda.get_device_name(config.device) if kind == "cuda" else processor_name(),
        device_kind=kind,
        runtime="torch",
        batch_size=config.batch,
        threads=config.threads,
        dtype=config.dtype,
        memory_format="channels_last",
        versions={"python": platform.python_version(), "torch": torch.__version__, "tfnas": tfnas.__version__},
        date=datetime.date.today().isoformat(),
        procedure=procedure,
    )


def _procedure(config: BuildConfig, timings: FairTimings, ratios: list[float]) -> str:
    low, high = timings.drift
    text = (
        f"Each part alone, {config.rounds} interleaved rounds in random order, {config.calls} timed calls per visit "
        "after one untimed; before every timed call a reference block runs and the input is written anew; ms = median "
        "of (ms / reference ms in the visit) x median reference ms; memory allocator primed. "
        f"Reference {timings.reference.median_ms:.3f} ms, interquartile spread {timings.reference.spread_ms:.3f} ms, "
        f"fastest and slowest round {low:.2f} and {high:.2f} of the median."
    )
    if ratios:
        text += (
            f" {len(ratios)} random whole networks in the same rounds measured {min(ratios):.3f} to {max(ratios):.3f} "
            f"of their sums, mean {np.mean(ratios):.3f}."
        )
    return text
