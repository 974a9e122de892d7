"""Result of a table check: the networks, errors and verdict, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.latency.correction_fit import CorrectionFit, FloatArray, sum_errors
from tfnas.latency.table_contents import Correction, SumErrors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FITTED, HELD_OUT = "fitted", "held_out"


@dataclass(frozen=True, kw_only=True)
class CheckedNetwork:
    """A whole network: what the table says, and what it measures."""

    part: str
    """`fitted`, what a correction is fitted on, or `held_out`, what it is validated on."""
    blocks: int
    sum_ms: float
    """The uncorrected sum of the table's parts."""
    predicted_ms: float
    """As the table says, with the correction that it had."""
    corrected_ms: float | None
    """With the correction fitted now, if there is one."""
    measured_ms: float
    """Median of its calls, at the level asked for."""
    spread_ms: float
    """Interquartile range of the calls."""
    plain_ms: float
    """Median of the calls as they were: not normalised to the adjacent reference, at the present speed."""
    runs: int
    architecture: str


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """How fast the device is now, against when the table was measured."""

    blocks: int
    """So many blocks of the table were timed again, alone."""
    ratio: float
    """Median of what they take now over what the table says."""
    reference_ms: float
    """The reference next to them, now."""
    reference_before_ms: float | None
    """And when the table was built, where it says so."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Networks of a table's space, predicted and measured; the correction, and what became of it."""

    lookup_path: str
    table: str
    """Its description."""
    fingerprint: str
    space: str
    image_size: int
    num_classes: int
    device: str
    versions: dict[str, str]
    date: str
    seed: int
    rounds: int
    calls: int
    seconds: float
    evened: bool
    """Whether calls were normalised to the adjacent reference, which is done if that reduces their scatter."""
    cpu_share: float | None
    """Processor time of all threads over time passed, where that is known: at most 1 for each thread."""
    lost_core_per_s: float | None
    """How often they have lost a core to other programs in a second of processor time, where that is known."""
    disturbance: str | None
    """What makes the timings unfit to correct a table by, in words."""
    at_level: str
    level: MachineSpeed
    networks: tuple[CheckedNetwork, ...]
    present: Correction | None
    """The correction that the table had."""
    fit: CorrectionFit | None
    """The one fitted now, if any form was significantly better than the uncorrected sum."""
    verdict: str
    """What became of it, in words."""
    table_written: str | None
    """The table's file, where it was changed or made."""
    plot_file: str
    numbers_file: str

    def errors(self, which: str, part: str | None = None) -> SumErrors:
        """Of `sum_ms`, `predicted_ms` or `corrected_ms`, over one part of the networks or all."""
        chosen = [network for network in self.networks if part in (None, network.part)]
        return sum_errors(_column(chosen, which), _column(chosen, "measured_ms"))

    @property
    def held_out(self) -> int:
        """How many networks a correction is validated on."""
        return sum(network.part == HELD_OUT for network in self.networks)

    @property
    def spread_percent(self) -> float:
        """Interquartile range of a network's calls, in percent; the median over the networks."""
        return 100 * float(np.median([network.spread_ms / network.measured_ms for network in self.networks]))

    def to_json(self) -> dict[str, Any]:
        """Everything, with the errors that follow from it."""
        names = ("sum_ms", "predicted_ms", *(("corrected_ms",) if self.fit else ()))
        parts = {"all": None, **{part: part for part in sorted({network.part for network in self.networks})}}
        errors = {
            name: {words: dataclasses.asdict(self.errors(name, part)) for words, part in parts.items()}
            for name in names
        }
        document = dataclasses.asdict(self)
        networks = document.pop("networks")
        return {"format": "tfnas-latency-check", "version": 1, **document, "errors": errors, "networks": networks}


def _column(networks: list[CheckedNetwork], name: str) -> FloatArray:
    return np.array([getattr(network, name) for network in networks], dtype=np.float64)


_DPI = 150
_INCHES = 5.2
_BAND = 0.05
_PARTS = ((FITTED, "fitted to", "#777777", "none"), (HELD_OUT, "held out", "#1f5fa8", "#1f5fa8"))


def check_picture(report: CheckReport) -> bytes:
    """A PNG: a mark for every network, the interquartile range of its calls, and the line on which it should lie."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    before = "uncorrected sum" if report.present is None else f"as the table is (corrected on {report.present.date})"
    panels = [("predicted_ms", before)]
    if report.fit is not None:
        panels.append(("corrected_ms", "with the correction fitted now"))
    figure = Figure(figsize=(_INCHES * len(panels), _INCHES + 0.8), dpi=_DPI, layout="compressed")
    FigureCanvasAgg(figure)
    values = [getattr(network, name) for network in report.networks for name in dict(panels)]
    for network in report.networks:
        values += [network.measured_ms - network.spread_ms / 2, network.measured_ms + network.spread_ms / 2]
    margin = 0.04 * (max(values) - min(values)) or 0.05 * max(values)
    limits = max(0.0, min(values) - margin), max(values) + margin
    for index, (name, title) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _draw(axes, report, name, limits)
        errors = report.errors(name, None if report.fit is None else HELD_OUT)
        whose = "all" if report.fit is None else "held out"
        numbers = f"{whose}: median {errors.median_percent:.1f} %, worst {errors.worst_percent:.1f} %"
        axes.set_title(f"{title}\n{numbers}, bias {errors.bias_percent:+.1f} %", fontsize=10)
    figure.suptitle(
        f"{report.space}, {len(report.networks)} random networks\n{report.table}", fontsize=8, color="#444444"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, report: CheckReport, name: str, limits: tuple[float, float]) -> None:
    line = np.array(limits)
    axes.fill_between(line, line * (1 - _BAND), line * (1 + _BAND), color="#eeeeee", label=f"within {_BAND:.0%}")
    axes.plot(line, line, color="#999999", linewidth=1, label="as predicted")
    for part, words, colour, inside in _PARTS:
        chosen = [network for network in report.networks if network.part == part]
        if chosen:
            axes.errorbar(
                [getattr(network, name) for network in chosen],
                [network.measured_ms for network in chosen],
                yerr=[network.spread_ms / 2 for network in chosen],
                label=words if report.fit is not None else "networks",
                fmt="o",
                color=colour,
                markerfacecolor=inside,
                elinewidth=1,
                markersize=5,
            )
    axes.set(xlim=limits, ylim=limits, xlabel="predicted, ms", ylabel="measured, ms", aspect="equal")
    axes.legend(loc="best", fontsize=8)
