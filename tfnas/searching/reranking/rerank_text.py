"""What a person sees of a re-ranking: the best candidates, where the derived one stands, and what scores are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from tfnas.latency.reachable import FLOOR
from tfnas.runs.run_directory import RunDirectory
from tfnas.searching.reranking.finished_search import FinishedSearch
from tfnas.searching.reranking.rerank_config import INHERITED, RerankConfig
from tfnas.searching.reranking.rerank_result import CSV_FILE, JSON_FILE, PLOT_FILE, Measured, Reranking
from tfnas.searching.reranking.score_calibration import MACS, RankCorrelation, ScoreCalibration
from tfnas.utils.text import clock, own_width, short, typed

SHOWN = 20
_WORDS = {INHERITED: "inherited accuracy", MACS: "MACs", "preference": "the search's own preference"}


def announcement(config: RerankConfig, subject: FinishedSearch) -> Iterator[str]:
    """What is about to be done."""
    target = subject.cost.quantity(subject.target, 6)
    low = subject.cost.quantity(FLOOR * subject.target, 6)
    yield ""
    yield f"re-ranking {config.num_candidates} candidates between {low} and {target} by {', '.join(config.score_names)}"
    for warning in subject.warnings:
        yield f"warning: {warning}"


def show_result(result: Reranking, run: RunDirectory) -> None:
    """Print all that was found, and log it."""
    count, wanted = len(result.candidates), result.config.num_candidates
    if count < wanted:
        run.say(
            f"only {count} different networks were found in the band, not {wanted}: with raised temperature too, "
            "nothing else came"
        )
    run.show(_Candidates(result))
    if result.calibration is not None:
        run.show(_verdicts_table(result.calibration, result))
        for line in _calibration_lines(result.calibration, result):
            run.say(line)
    for line in _conclusion(result):
        run.say(line)


# ---- candidates -----------------------------------------------------------------------------------------------------


class _Candidates:
    """The first candidates as a table; of the measures, as many as there is room for, those that are combined first."""

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
            yield f"no room for {', '.join(item.name for item in reversed(left_out))}: see {CSV_FILE}"

    def _table(self, measures: Sequence[Measured]) -> Table:
        result, order = self.result, self.result.order
        title = f"The first {min(SHOWN, len(order))} of {len(order)} candidates" + ("" if result.used else ", unranked")
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
        trained = {} if result.calibration is None else result.calibration.top1_of
        names = ["rank", "candidate", *(item.name for item in measures), result.subject.cost.unit, "MACs", "params"]
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
        yield result.subject.cost.number(result.costs[number], 5)
        yield short(counts.macs)
        yield short(counts.params)
        if trained:
            yield f"{trained[number]:.2f}" if number in trained else ""


# ---- calibration ----------------------------------------------------------------------------------------------------


def _verdicts_table(calibration: ScoreCalibration, result: Reranking) -> Table:
    count, (trained, judged) = len(calibration.numbers), calibration.images
    title = f"Kendall's tau with the accuracy of {count} candidates trained on {trained} images, judged on {judged}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("measure", "tau", "95 % interval", "beats MACs", "in resamples", ""):
        table.add_column(name, justify="left" if name in ("measure", "beats MACs", "") else "right")
    by_tau = sorted(calibration.verdicts, key=lambda verdict: -2.0 if verdict.tau is None else -verdict.tau.value)
    ranked = {item.name for item in result.measures if item.ranked}
    for verdict in by_tau:
        table.add_row(*_verdict_cells(verdict, ranked, result.used))
    return table


def _verdict_cells(verdict: RankCorrelation, ranked: set[str], used: tuple[str, ...]) -> list[str]:
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
        yield "          all alike, so nothing can be said: train on fewer images (--calibrate_images)"
    ranked = tuple(item.name for item in result.measures if item.ranked)
    left_out = calibration.worthless(ranked)
    if left_out:
        yield f"left out  {', '.join(left_out)}: no better than MACs, or than chance, at foretelling accuracy here"


# ---- the end --------------------------------------------------------------------------------------------------------


def _conclusion(result: Reranking) -> Iterator[str]:
    count = len(result.candidates)
    if result.used:
        each = ", ".join(f"{item.name} {item.ranks[0]:g}" for item in result.measures)
        yield f"derived   rank {result.derived_rank} of {count}, combined from {', '.join(result.used)} ({each})"
    else:
        none_named = not any(item.ranked for item in result.measures)
        why = "nothing to rank by was named" if none_named else "none of the scores beats MACs and chance here"
        yield f"derived   there is no combined ranking: {why}"
    controls = [item.name for item in result.measures if not item.ranked and item.name in result.config.score_names]
    if controls:
        yield f"control   {', '.join(controls)} says nothing of a network, and is never combined"
    total = sum(result.seconds.values())
    phases = ", ".join(f"{name} {clock(seconds)}" for name, seconds in result.seconds.items())
    yield f"took      {clock(total)}: {phases}"


def written(result: Reranking, run: RunDirectory) -> Iterator[str]:
    """What the run directory holds now."""
    held = "the derived architecture"
    if result.picked:
        held = f"candidate {result.picked}, the first of the ranking (--pick derived puts the derived one back)"
    elif result.config.pick == "rank":
        held += ", which is the first of the ranking" if result.used else ", since nothing was left to rank by"
    yield f"picked    model.config and architecture.json hold {held}"
    yield f"files     {typed(run.path)}: {CSV_FILE}, {JSON_FILE}, {PLOT_FILE}"
