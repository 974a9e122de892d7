"""Output of a re-ranking: the best candidates, the rank of the derived one, the calibration, and a picture of it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from tfnas.core.cost import FLOOR
from tfnas.runs.run_directory import RunDirectory
from tfnas.searching.reranking.finished_search import FinishedSearch
from tfnas.searching.reranking.rerank_config import INHERITED, RerankConfig
from tfnas.searching.reranking.rerank_result import (
    CSV_FILE,
    JSON_FILE,
    MACS,
    PLOT_FILE,
    Measured,
    RankCorrelation,
    Reranking,
    ScoreCalibration,
)
from tfnas.utils.text import clock, own_width, short, typed

SHOWN = 20
_DPI = 150
_INCHES = 3.6
_MOST_COLUMNS = 3
_GREY, _BLUE, _RED = "#999999", "#1f5fa8", "#c23b22"
_WORDS = {INHERITED: "inherited accuracy", MACS: "MACs", "preference": "the search's own preference"}


def announcement(config: RerankConfig, search: FinishedSearch) -> Iterator[str]:
    """First lines: what is re-ranked by what."""
    target = search.cost.quantity(search.target, 6)
    low = search.cost.quantity(FLOOR * search.target, 6)
    yield ""
    yield f"re-ranking {config.num_candidates} candidates between {low} and {target} by {', '.join(config.score_names)}"
    for warning in search.warnings:
        yield f"warning: {warning}"


def show_result(result: Reranking, run: RunDirectory) -> None:
    """Print and log the result."""
    count, wanted = len(result.candidates), result.config.num_candidates
    if count < wanted:
        run.say(
            f"only {count} distinct networks were found in the band instead of {wanted}, even at raised temperature"
        )
    run.show(_Candidates(result))
    if result.calibration is not None:
        run.show(_correlation_table(result.calibration, result))
        for line in _calibration_lines(result.calibration, result):
            run.say(line)
    for line in _conclusion(result):
        run.say(line)


# ---- candidates -----------------------------------------------------------------------------------------------------


class _Candidates:
    """Table of the first candidates; of the measures, as many as fit into the width, the combined ones first."""

    def __init__(self, result: Reranking) -> None:
        self.result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        measures, left_out = list(self.result.measures), []
        table = self._table(measures)
        while measures and own_width(console, table) > options.max_width:
            others = [item for item in measures if item.name not in self.result.used]
            left_out.append((others or measures)[-1])
            measures.remove(left_out[-1])
            table = self._table(measures)
        yield table
        if left_out:
            yield f"not shown: {', '.join(item.name for item in reversed(left_out))} (see {CSV_FILE})"

    def _table(self, measures: Sequence[Measured]) -> Table:
        result, order = self.result, self.result.order
        title = f"The first {min(SHOWN, len(order))} of {len(order)} candidates" + ("" if result.used else ", unranked")
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
        trained = {} if result.calibration is None else result.calibration.top1_by_number
        names = ["rank", "candidate", *(item.name for item in measures), result.search.cost.unit, "MACs", "params"]
        for name in [*names, *(["trained %"] if trained else [])]:
            table.add_column(f"{name} %" if name == INHERITED else name, justify="right")
        shown = order[:SHOWN]
        for number in [*shown, *([] if 0 in shown else [0])]:
            if number == 0 and number not in shown:
                table.add_row()
            table.add_row(*self._cells(measures, order.index(number) + 1, number, trained))
        return table

    def _cells(
        self, measures: Sequence[Measured], place: int, number: int, trained: Mapping[int, float]
    ) -> Iterator[str]:
        result, counts = self.result, self.result.counts[number]
        yield str(place) if result.used else ""
        yield "derived" if number == 0 else str(number)
        for item in measures:
            left_out = "" if not item.ranked or item.name in result.used else " -"
            value = f"{item.values[number]:.2f}" if item.name == INHERITED else f"{item.values[number]:.5g}"
            yield f"{value} ({item.ranks[number]:g}){left_out}"
        yield result.search.cost.number(result.costs[number], 5)
        yield short(counts.macs)
        yield short(counts.params)
        if trained:
            yield f"{trained[number]:.2f}" if number in trained else ""


# ---- calibration ----------------------------------------------------------------------------------------------------


def _correlation_table(calibration: ScoreCalibration, result: Reranking) -> Table:
    count, (trained, evaluated) = len(calibration.numbers), calibration.images
    title = (
        f"Kendall's tau with the accuracy of {count} candidates trained on {trained} images, evaluated on {evaluated}"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("measure", "tau", "95 % interval", "beats MACs", "in resamples", ""):
        table.add_column(name, justify="left" if name in ("measure", "beats MACs", "") else "right")
    by_tau = sorted(calibration.verdicts, key=lambda verdict: -2.0 if verdict.tau is None else -verdict.tau.value)
    ranked = {item.name for item in result.measures if item.ranked}
    for verdict in by_tau:
        table.add_row(*_correlation_cells(verdict, ranked, result.used))
    return table


def _correlation_cells(verdict: RankCorrelation, ranked: set[str], used: tuple[str, ...]) -> list[str]:
    tau = verdict.tau
    beats = {None: "", True: "yes", False: "no"}[verdict.beats_macs]
    share = "" if verdict.share_beating_macs is None else f"{verdict.share_beating_macs:.0%}"
    role = "" if verdict.measure not in ranked else "combined" if verdict.measure in used else "left out"
    name = _WORDS.get(verdict.measure, verdict.measure)
    if tau is None:
        return [name, "none", "", beats, share, role]
    return [name, f"{tau.value:+.2f}", f"{tau.low:+.2f} to {tau.high:+.2f}", beats, share, role]


def _calibration_lines(calibration: ScoreCalibration, result: Reranking) -> Iterator[str]:
    low, high = min(calibration.top1), max(calibration.top1)
    within = ""
    if calibration.seed_spread is not None:
        within = f"; the trainings of one network by {calibration.seed_spread:.2f} points"
    yield (
        f"trained   top-1 {low:.2f} to {high:.2f} %: networks differ by {calibration.spread:.2f} points (standard "
        f"deviation){within}"
    )
    if low == high:
        yield "          all equal, so there is nothing to predict: train on fewer images (--calibrate_images)"
    ranked = tuple(item.name for item in result.measures if item.ranked)
    left_out = calibration.not_useful(ranked)
    if left_out:
        yield f"left out  {', '.join(left_out)}: they do not predict accuracy better than MACs, or than chance"


# ---- the end --------------------------------------------------------------------------------------------------------


def _conclusion(result: Reranking) -> Iterator[str]:
    count = len(result.candidates)
    if result.used:
        each = ", ".join(f"{item.name} {item.ranks[0]:g}" for item in result.measures)
        yield f"derived   rank {result.derived_rank} of {count}, combined from {', '.join(result.used)} ({each})"
    else:
        none_named = not any(item.ranked for item in result.measures)
        why = "no scores to rank by were given" if none_named else "none of the scores beats MACs and chance here"
        yield f"derived   there is no combined ranking: {why}"
    controls = [item.name for item in result.measures if not item.ranked and item.name in result.config.score_names]
    if controls:
        yield f"control   {', '.join(controls)} is a control and never combined"
    total = sum(result.seconds.values())
    phases = ", ".join(f"{name} {clock(seconds)}" for name, seconds in result.seconds.items())
    yield f"took      {clock(total)}: {phases}"


def written(result: Reranking, run: RunDirectory) -> Iterator[str]:
    """Last lines: the selected network and the files."""
    held = "the derived architecture"
    if result.selected:
        held = f"candidate {result.selected}, the first of the ranking (--pick derived restores the derived one)"
    elif result.config.pick == "rank":
        held += ", which is the first of the ranking" if result.used else ", since no score was left to rank by"
    yield f"picked    model.config and architecture.json contain {held}"
    yield f"files     {typed(run.path)}: {CSV_FILE}, {JSON_FILE}, {PLOT_FILE}"


# ---- the picture ----------------------------------------------------------------------------------------------------


def rerank_picture(result: Reranking) -> bytes:
    """A PNG: a panel for every measure, with trained accuracy upwards if some were trained, else the inherited one."""
    calibration = result.calibration
    inherited = result.measure(INHERITED).values
    accuracy = dict(enumerate(inherited)) if calibration is None else calibration.top1_by_number
    words = "top-1 with inherited weights, %" if calibration is None else "top-1 trained from scratch, %"
    panels = [(item.name, item.values) for item in result.measures if calibration is not None or item.name != INHERITED]
    panels += [(MACS, tuple(float(count.macs) for count in result.counts))]
    if "params" not in [name for name, _ in panels]:
        panels += [("params", tuple(float(count.params) for count in result.counts))]
    columns = 2 if len(panels) == 4 else min(_MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * rows + 0.5), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for index, (name, values) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw(axes, result, values, accuracy)
        axes.set_xlabel(_axis_words(result, name))
        axes.set_ylabel(words if index % columns == 0 else "")
        axes.set_title(_title(result, name), fontsize=9)
        if name in (MACS, "params", "flops"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        if index == 0:
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    target = result.search.cost.quantity(result.search.target, 6)
    count = f"{len(accuracy)} of {len(result.candidates)}" if calibration is not None else str(len(accuracy))
    figure.suptitle(f"{count} candidates within 0.5 % below {target}", fontsize=9, color="#444444")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, result: Reranking, values: tuple[float, ...], accuracy: dict[int, float]) -> None:
    first = result.order[0] if result.used else None
    others = [number for number in accuracy if number not in (0, first)]
    axes.plot(
        [values[n] for n in others], [accuracy[n] for n in others], "o", color=_GREY, markersize=4, label="candidates"
    )
    if first is not None and first != 0 and first in accuracy:
        axes.plot(values[first], accuracy[first], "s", color=_RED, markersize=6, label="first of the ranking")
    axes.plot(values[0], accuracy[0], "D", color=_BLUE, markersize=6, label="derived")


def _axis_words(result: Reranking, name: str) -> str:
    measure = next((item for item in result.measures if item.name == name), None)
    if measure is None or name == INHERITED:
        return {INHERITED: "inherited top-1, %", MACS: "MACs", "params": "parameters"}[name]
    return f"{name} ({'higher' if measure.higher_is_better else 'lower'} is better)"


def _title(result: Reranking, name: str) -> str:
    if result.calibration is None:
        return ""
    verdict = next(verdict for verdict in result.calibration.verdicts if verdict.measure == name)
    if verdict.tau is None:
        return "tau is not defined"
    return f"tau {verdict.tau.value:+.2f} ({verdict.tau.low:+.2f} to {verdict.tau.high:+.2f})"
