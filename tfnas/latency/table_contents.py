"""What a cost table contains, whatever file it came from: curves, base, provenance, and how they must fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import short

LEAST_MS, MOST_MS = 1e-9, 1e15
"""What is outside is no measurement, and would make interpolation overflow."""

DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Runtime, device, batch, threads and number type of a measurement."""

    runtime: str = "torch"
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    batch_size: int = 1
    threads: int = 1
    dtype: str = "float32"

    @property
    def device_kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]


FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LARGEST_WIDTH = 65536
"""Widths above it are taken for a broken file: every width up to the largest costs memory."""

LEVELS = ("now", "table")
"""What a correction may hold: the level of the machine when it was fitted, or when the table was measured."""

COSTS = ("ms", "macs", "params")
"""What a table counts: milliseconds per batch, or multiply-accumulates or parameters of one network."""

ANY_DEVICE = "any"
"""Device, runtime and number type of a table that was counted and not measured."""


@dataclass(frozen=True)
class WidthClasses:
    """Which widths a device treats alike: multiples of `multiple` channels are one class, all others another.

    Either class may lie on stairs: its widths cost what the next multiple of `multiples_stair` or `others_stair` above
    them costs. 1 stands for one class, and for no stairs.
    """

    multiple: int = 1
    multiples_stair: int = 1
    others_stair: int = 1


@dataclass(frozen=True)
class Curve:
    """Milliseconds of a block at the measured widths (ascending), with the interquartile range of each point."""

    widths: tuple[int, ...]
    ms: tuple[float, ...]
    spread_ms: tuple[float, ...]

    @classmethod
    def exact(cls, values: Mapping[int, float]) -> Curve:
        """Through values by width (ascending) that are counted, so that they have no spread."""
        return cls(tuple(values), tuple(float(value) for value in values.values()), (0.0,) * len(values))

    def without(self, width: int) -> Curve:
        """The same curve with one of its points taken away."""
        place = self.widths.index(width)
        rows = self.widths, self.ms, self.spread_ms
        widths, ms, spread_ms = (row[:place] + row[place + 1 :] for row in rows)
        return Curve(tuple(int(width) for width in widths), ms, spread_ms)

    def dense_ms(self, classes: WidthClasses = WidthClasses()) -> FloatArray:
        """Milliseconds at every width from the first to the last measured, float64, read-only.

        Measured points stand as they are, between them it is `interpolated_ms`.
        """
        widths, measured = np.asarray(self.widths), np.asarray(self.ms, dtype=np.float64)
        values = interpolated_ms(widths, measured, np.arange(widths[0], widths[-1] + 1), classes)
        values[widths - widths[0]] = measured
        values.flags.writeable = False
        return values


def interpolated_ms(widths: IntArray, ms: FloatArray, at: IntArray, classes: WidthClasses) -> FloatArray:
    """Milliseconds at some widths, by those measured at others (ascending); both are taken up to their stairs first.

    Straight lines run between the points: no overshoot, and the noise of a point is not made larger around it, as
    smoother curves do where points lie close together. With two classes of widths, the lines run between the points
    that are no multiples; the multiples have their own ratio to them, which is interpolated between the multiples that
    were measured.
    """
    aligned = widths % classes.multiple == 0
    if classes.multiple == 1 or aligned.all() or not aligned.any():
        return _between(widths, ms, at)
    others = _up(widths[~aligned], classes.others_stair), ms[~aligned]
    values = _between(*others, _up(at, classes.others_stair))
    multiples = at % classes.multiple == 0
    if multiples.any():
        known, wanted = (_up(row, classes.multiples_stair) for row in (widths[aligned], at[multiples]))
        ratios = ms[aligned] / _between(*others, _up(known, classes.others_stair))
        values[multiples] = _between(*others, _up(wanted, classes.others_stair)) * _between(known, ratios, wanted)
    return values


def _up(widths: IntArray, step: int) -> IntArray:
    """Each width, or the next multiple of the step above it."""
    return widths if step == 1 else -(-widths // step) * step


def _between(widths: IntArray, ms: FloatArray, at: IntArray) -> FloatArray:
    """Interpolated values; points at one and the same width count with their mean. Beyond the ends it stays level."""
    is_new = widths[1:] != widths[:-1]
    if not is_new.all():
        starts = np.concatenate([[0], np.flatnonzero(is_new) + 1])
        counts = np.concatenate([starts[1:], [len(ms)]]) - starts
        widths, ms = widths[starts], np.add.reduceat(ms, starts) / counts
    return np.interp(at, widths, ms)


@dataclass(frozen=True)
class BasePart:
    """A part that every network of the space has: what it is, its milliseconds and their interquartile spread."""

    key: str
    ms: float
    spread_ms: float


@dataclass(frozen=True)
class ClassifierPart:
    """The classifier: what it is, and its milliseconds by number of classes, the `widths` of the curve."""

    key: str
    curve: Curve


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Where and how a table was measured."""

    space: str
    space_fingerprint: str
    image_size: int
    num_classes: int
    """Of the networks that stand for the space where nothing else is said; others are corrected for."""
    width_multiple: int
    """Only widths that are multiples of it were measured, and are priced."""
    device: str
    """Name of the processor or GPU."""
    device_kind: str
    """`cpu` or `cuda`; `any` of a table that was counted and not measured."""
    worker: bool
    """Whether the device was another machine, reached by a worker."""
    runtime: str
    batch_size: int
    threads: int
    dtype: str
    versions: Mapping[str, str]
    date: str
    """Day of the measurement, YYYY-MM-DD."""
    procedure: str
    """How it was measured, in words."""
    instruction_sets: tuple[str, ...] = ()
    """The processor's, for arithmetic on vectors; none where it does not tell, and in tables of earlier versions."""

    @property
    def description(self) -> str:
        """One line for people."""
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        runtime = runtime_text(self.runtime, self.versions)
        return f"{self.device}, {runtime}, batch {self.batch_size}, {threads}, {self.dtype}, {self.date}"


def runtime_text(runtime: str, versions: Mapping[str, str]) -> str:
    """A runtime with its version, where the versions hold it: `torch-compile 2.11.0`, by the name before the dash."""
    return f"{runtime} {versions.get(runtime, versions.get(runtime.partition('-')[0], ''))}".strip()


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What measuring the table took and how quiet the machine was."""

    points: int
    """Blocks at a width that were measured and are used."""
    held_out_points: int
    """Those that were measured and are not used."""
    enumerated_points: int
    """Those that every width of every operation of every block would have needed; equal blocks count once."""
    seconds: float
    visits: int
    repeated_visits: int
    """Measurements that were disturbed and repeated."""
    reference: str
    """The block that every call was normalised to."""
    reference_ms: float
    reference_spread_ms: float
    slowest_drift: float
    fastest_drift: float
    """Slowest and fastest stretch of the reference, as multiples of its median."""


@dataclass(frozen=True, kw_only=True)
class SumErrors:
    """How far predictions for whole networks are from what they measure, in percent of what they measure.

    `bias_percent` is the median of the signed errors (above 0: predicted too slow), `median_percent` and
    `worst_percent` are of their sizes; `kendall_tau` compares the order.
    """

    networks: int
    bias_percent: float
    median_percent: float
    worst_percent: float
    kendall_tau: float


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The correction of a sum of blocks: network = scale * sum of parts + offset_ms + block_ms for every block.

    Fitted to `fitted_networks` whole networks, drawn with `seed`; `before` and `after` are the errors on the others of
    that draw, without and with it.
    """

    scale: float
    offset_ms: float
    block_ms: float
    fitted_networks: int
    seed: int
    level: str
    """One of `LEVELS`: whether it was fitted to milliseconds as they were then, or as when the table was measured."""
    machine_ratio: float
    """What single blocks took at the time of the fit, over what the table says of them; the median."""
    runtime: str
    """What ran the networks, with its version: `torch 2.11.0`."""
    before: SumErrors
    after: SumErrors
    date: str

    @property
    def description(self) -> str:
        """What it was fitted to, in words."""
        drawn = self.fitted_networks + self.before.networks
        pace = f"{self.machine_ratio:.2f} x the table's"
        level = f"at the machine's level of that day, {pace}" if self.level == "now" else f"{pace}, divided out"
        return f"{self.fitted_networks} of {drawn} networks drawn with seed {self.seed}, in {self.runtime}, {level}"


@dataclass(frozen=True)
class TableContents:
    """Base parts by name, classifier, curves by block key, and what only our own files carry.

    `held_out` are measured points that are not used, to estimate the interpolation error.
    """

    base: Mapping[str, BasePart]
    curves: Mapping[str, Curve]
    measurement: Measurement | None
    classifier: ClassifierPart | None = None
    cost: str = "ms"
    classes: WidthClasses = WidthClasses()
    held_out: Mapping[str, Curve] = field(default_factory=dict)
    build: BuildReport | None = None
    correction: Correction | None = None


def check_consistency(contents: TableContents) -> None:
    """Raise InputError naming what contradicts what; a reader has checked each value by itself."""
    _check_counted(contents)
    _check_number_of_classes(contents)
    _check_held_out(contents)
    _check_numbers_of_points(contents)
    _check_correction(contents)


def _check_counted(contents: TableContents) -> None:
    """What was counted holds for any device and in whole numbers, and is not corrected; what was measured has one."""
    counted = contents.cost != "ms"
    assert contents.measurement is not None and contents.classifier is not None
    if counted != (contents.measurement.device_kind == ANY_DEVICE):
        raise InputError(
            f"device_kind is {contents.measurement.device_kind!r}, but cost is {contents.cost!r}: only counted costs "
            f"apply to {ANY_DEVICE!r} device"
        )
    if counted and contents.correction is not None:
        raise InputError(f"correction: there is nothing to correct where cost is {contents.cost!r}")
    numbers: dict[str, tuple[float, ...]] = {f"base.{name}.ms": (part.ms,) for name, part in contents.base.items()}
    curves = {"classifier": contents.classifier.curve}
    curves.update((f"blocks.{key}", curve) for key, curve in contents.curves.items())
    numbers.update((f"{name}.ms", curve.ms) for name, curve in curves.items())
    for name, values in numbers.items() if counted else ():
        if not all(value.is_integer() for value in values):
            raise InputError(f"{name} must be whole numbers where cost is {contents.cost!r}, got {values!s:.60}")


def _check_number_of_classes(contents: TableContents) -> None:
    """The networks that stand for the space must have as many classes as the classifier was measured for."""
    assert contents.measurement is not None and contents.classifier is not None
    counts, wanted = contents.classifier.curve.widths, contents.measurement.num_classes
    if not counts[0] <= wanted <= counts[-1]:
        raise InputError(f"num_classes is {short(wanted)}, but classifier.widths go from {counts[0]} to {counts[-1]}")


def _check_held_out(contents: TableContents) -> None:
    """Held-out points must lie where the table interpolates."""
    for key, curve in contents.held_out.items():
        known = contents.curves.get(key)
        if known is None:
            raise InputError(f"held_out.{key} is not among the blocks")
        if not known.widths[0] <= curve.widths[0] <= curve.widths[-1] <= known.widths[-1]:
            raise InputError(
                f"held_out.{key}.widths must lie within those of the block, {known.widths[0]} to {known.widths[-1]}"
            )


def _check_numbers_of_points(contents: TableContents) -> None:
    """The report of the build must count the points that are there."""
    if contents.build is None:
        return
    counted = {"points": contents.curves, "held_out_points": contents.held_out}
    for name, curves in counted.items():
        said, found = getattr(contents.build, name), sum(len(curve.widths) for curve in curves.values())
        if said != found:
            raise InputError(f"build.{name} is {short(said)}, but the table contains {found}")


def _check_correction(contents: TableContents) -> None:
    """A correction must leave every lookup above zero."""
    correction, classifier = contents.correction, contents.classifier
    if correction is None:
        return
    assert classifier is not None
    least_base_ms = sum(part.ms for part in contents.base.values()) + min(classifier.curve.ms)
    base_ms = correction.scale * least_base_ms + correction.offset_ms
    if not 0 < base_ms <= MOST_MS:
        raise InputError(f"the correction gives {base_ms:.4g} ms for stem and head: the file is corrupt")
    for key, curve in contents.curves.items():
        ends_ms = np.array([(dense := curve.dense_ms(contents.classes)).min(), dense.max()])
        least_ms, most_ms = correction.scale * ends_ms + correction.block_ms
        if not 0 < least_ms <= most_ms <= MOST_MS:
            raise InputError(
                f"the correction gives {least_ms:.4g} to {most_ms:.4g} ms for blocks.{key}: the file is corrupt"
            )
