"""Result of a re-ranking: ranks and their combination, the calibration of the scores, the files, the selected network.

Ranks of several measures are combined by the sum of their logarithms. A calibration holds every measure against the
accuracy of candidates trained from scratch: which scores predict accuracy within the latency band.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.units import Counts
from tfnas.runs.architecture_source import DERIVED
from tfnas.runs.run_directory import SUMMARY_FILE, RunDirectory
from tfnas.searching.differentiable.candidates import Candidate
from tfnas.searching.reranking.finished_search import FinishedSearch
from tfnas.searching.reranking.rerank_config import INHERITED, RerankConfig
from tfnas.utils.statistics import Tau, share_beating, tau_with_interval

CSV_FILE = "rerank.csv"
JSON_FILE = "rerank.json"
PLOT_FILE = "rerank.png"
JSON_FORMAT = "tfnas-rerank"
PICKED_BY = "picked_by"
MACS = "macs"

FloatArray = NDArray[np.float64]


def ranks(values: Sequence[float], higher_is_better: bool) -> FloatArray:
    """1 for the best of the values [n]; equal values share the mean of their places."""
    signed = np.asarray(values, dtype=np.float64) * (-1 if higher_is_better else 1)
    return np.asarray(rankdata(signed), dtype=np.float64)


def log_rank_sums(rankings: Sequence[FloatArray]) -> FloatArray:
    """Sums of the logarithms of ranks, [n] of each of the rankings; the smallest is the best.

    With the logarithm, second versus tenth matters more than fortieth versus forty-eighth. (AZ-NAS sums them too, but
    counts ranks from the worst, so that there a bad rank matters most: `tfnas.combine_ranks`.)
    """
    return np.asarray(np.sum(np.log(np.stack(rankings)), axis=0), dtype=np.float64)


def combined_order(rankings: Sequence[FloatArray]) -> list[int]:
    """Indices from best to worst; equal sums keep their order (the derived architecture is first)."""
    sums = np.round(log_rank_sums(rankings), 9)  # the same ranks in another order must give the same sum
    return [int(index) for index in np.argsort(sums, kind="stable")]


# ---- calibration ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of a measure with accuracy. `tau` is None if the measure or the accuracy is the same for all.

    `beats_macs` compares the taus; `share_beating_macs` is the fraction of bootstrap resamples of the networks in which
    the measure's tau is larger, 0.5 being no difference. Both are None for MACs themselves.
    """

    measure: str
    tau: Tau | None
    beats_macs: bool | None
    share_beating_macs: float | None

    @property
    def is_useful(self) -> bool:
        """Whether it beats MACs and has a positive correlation: if MACs mislead, misleading less is not enough."""
        return bool(self.beats_macs) and self.tau is not None and self.tau.value > 0


@dataclass(frozen=True)
class ScoreCalibration:
    """The trained candidates by number, their mean top-1 in percent, and the rank correlation of every measure.

    `images` are the numbers of training and evaluation images. `spread` is the standard deviation of accuracy among
    networks, `seed_spread` that of one network's trainings (None with one training each): if they are of equal size,
    no measure can predict much.
    """

    numbers: tuple[int, ...]
    top1: tuple[float, ...]
    images: tuple[int, int]
    epochs: int
    seeds: int
    spread: float
    seed_spread: float | None
    verdicts: tuple[RankCorrelation, ...]

    def not_useful(self, measures: Sequence[str]) -> tuple[str, ...]:
        """Those of the measures that do not beat MACs or are not positively correlated with accuracy."""
        useful = {verdict.measure for verdict in self.verdicts if verdict.is_useful}
        return tuple(name for name in measures if name not in useful)

    @property
    def top1_by_number(self) -> dict[int, float]:
        """Accuracy by candidate number."""
        return dict(zip(self.numbers, self.top1, strict=True))


def select_for_training(num_candidates: int, count: int, seed: int) -> tuple[int, ...]:
    """Numbers of the candidates to train: the derived one (0), and others drawn at random. Rising."""
    others = np.random.default_rng(seed).permutation(np.arange(1, num_candidates))[: count - 1]
    return (0, *sorted(int(number) for number in others))


def calibrate(
    numbers: Sequence[int],
    runs: Sequence[Sequence[float]],
    measures: Mapping[str, Sequence[float]],
    *,
    images: tuple[int, int],
    epochs: int,
) -> ScoreCalibration:
    """Correlate every measure with the accuracy of trained candidates.

    Args:
        numbers: Which candidates were trained.
        runs: Top-1 in percent of their trainings, one list per candidate.
        measures: Values of the same candidates by name, higher meaning better; including `macs`.
        images: Number of training and of evaluation images.
        epochs: Length of a training.
    """
    top1 = [float(np.mean(values)) for values in runs]
    reference = tau_with_interval(measures[MACS], top1)
    verdicts = []
    for name, values in measures.items():
        tau = reference if name == MACS else tau_with_interval(values, top1)
        beats, share = None, None
        if name != MACS:
            beats = tau is not None and tau.value > (0.0 if reference is None else reference.value)
            share = share_beating(values, measures[MACS], top1)
        verdicts.append(RankCorrelation(name, tau, beats, share))
    seeds = len(runs[0])
    within = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in runs]))) if seeds > 1 else None
    return ScoreCalibration(
        numbers=tuple(numbers),
        top1=tuple(top1),
        images=images,
        epochs=epochs,
        seeds=seeds,
        spread=float(np.std(top1, ddof=1)),
        seed_spread=within,
        verdicts=tuple(verdicts),
    )


# ---- the result -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A measure of all candidates [n]. `ranked`: the user asked to rank by it, and it is no control."""

    name: str
    higher_is_better: bool
    values: tuple[float, ...]
    ranked: bool

    @cached_property
    def ranks(self) -> list[float]:
        """1 for the best; equal values share the mean of their places."""
        return [float(rank) for rank in ranks(self.values, self.higher_is_better)]

    @property
    def signed(self) -> list[float]:
        """The values, negated if lower is better."""
        return [value if self.higher_is_better else -value for value in self.values]


@dataclass(frozen=True)
class Reranking:
    """Candidates in sampling order (the derived one first) with their measures.

    `used` names the measures that are combined; if it is empty (no score was given, or none beats MACs), there is no
    combined ranking and `order` is the sampling order.
    """

    config: RerankConfig
    search: FinishedSearch
    candidates: tuple[Candidate, ...]
    costs: tuple[float, ...]
    counts: tuple[Counts, ...]
    measures: tuple[Measured, ...]
    calibration: ScoreCalibration | None
    used: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def order(self) -> list[int]:
        """Numbers of the candidates, best first."""
        rankings = [ranks(item.values, item.higher_is_better) for item in self.measures if item.name in self.used]
        return combined_order(rankings) if rankings else list(range(len(self.candidates)))

    @property
    def log_rank_sums(self) -> list[float] | None:
        """The sum of log ranks of every candidate; None without a combined ranking."""
        rankings = [ranks(item.values, item.higher_is_better) for item in self.measures if item.name in self.used]
        return [float(total) for total in log_rank_sums(rankings)] if rankings else None

    @property
    def derived_rank(self) -> int:
        """The place of the derived architecture in the order, from 1."""
        return self.order.index(0) + 1

    @property
    def selected(self) -> int:
        """The number of the candidate to write into the run directory."""
        return self.order[0] if self.config.pick == "rank" and self.used else 0

    def measure(self, name: str) -> Measured:
        """The measure of a name."""
        return next(item for item in self.measures if item.name == name)

    # ---- files ------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """A record of every candidate, best first."""
        order, sums = self.order, self.log_rank_sums
        trained = {} if self.calibration is None else self.calibration.top1_by_number
        columns = [(item.name, item.values, item.ranks) for item in self.measures]
        rows = []
        for place, number in enumerate(order, 1):
            candidate = self.candidates[number]
            row: dict[str, Any] = {
                "rank": place if sums is not None else None,
                "candidate": number,
                "derived": candidate.is_derived,
                "log_rank_sum": None if sums is None else sums[number],
                self.search.cost.table_key: self.costs[number],
                "params": self.counts[number].params,
                "macs": self.counts[number].macs,
            }
            for name, values, places in columns:
                row[_column(name)], row[f"{name}_rank"] = values[number], places[number]
            row |= {"trained_top1": trained.get(number), "preference": candidate.log_prob_gap}
            row |= {"temperature": candidate.temperature, "architecture": candidate.architecture.to_text()}
            rows.append(row)
        return rows

    def to_csv(self) -> str:
        """The records as CSV with a header; unknown values are empty."""
        rows = self.rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Contents of rerank.json: the records, settings, calibration and the rank of the derived architecture."""
        search, picked = self.search, self.selected
        return {
            "format": JSON_FORMAT,
            "version": 1,
            "settings": dataclasses.asdict(self.config),
            "search": str(search.run_dir),
            "cost": search.cost.name,
            search.cost.target_key: search.target,
            "num_candidates": len(self.candidates),
            "scores": [item.name for item in self.measures if item.ranked],
            "combined": list(self.used),
            "derived_rank": self.derived_rank if self.used else None,
            "picked": {
                "by": "rank" if self.config.pick == "rank" and self.used else "derived",
                "candidate": picked,
                "architecture": self.candidates[picked].architecture.to_text(),
            },
            "directions": {item.name: "higher" if item.higher_is_better else "lower" for item in self.measures},
            "calibration": None if self.calibration is None else _calibration_json(self.calibration),
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "candidates": self.rows(),
        }


def _column(name: str) -> str:
    """The measure's column, apart from the ranks; params and macs have columns of that name already."""
    return {INHERITED: "inherited_top1", "params": "params_score", "macs": "macs_score"}.get(name, name)


def _calibration_json(calibration: ScoreCalibration) -> dict[str, Any]:
    document = dataclasses.asdict(calibration)
    document["verdicts"] = [
        {
            "measure": verdict.measure,
            "tau": None if verdict.tau is None else verdict.tau.value,
            "interval": None if verdict.tau is None else [verdict.tau.low, verdict.tau.high],
            "beats_macs": verdict.beats_macs,
            "share_beating_macs": verdict.share_beating_macs,
        }
        for verdict in calibration.verdicts
    ]
    document["images"] = {"trained": calibration.images[0], "judged": calibration.images[1]}
    return document


def write_selection(result: Reranking, run: RunDirectory) -> None:
    """Write the selected architecture and its numbers, unless they are there already.

    The summary keeps the numbers of the derived architecture next to those of another one.
    """
    before, number = result.search.summary, result.selected
    own = before.get(DERIVED) or {name: before.get(name) for name in _summary_numbers(result, 0)}
    summary = {name: value for name, value in before.items() if name not in (DERIVED, PICKED_BY)}
    summary |= own if number == 0 else {**_summary_numbers(result, number), PICKED_BY: "rank", DERIVED: own}
    picked = result.candidates[number].architecture
    if summary == before and _stored_architecture(run) == picked:
        return
    run.write_architecture(picked)
    run.write_json(SUMMARY_FILE, summary)


def _summary_numbers(result: Reranking, number: int) -> dict[str, Any]:
    """Numbers of a candidate under the summary's keys."""
    cost, counts = result.search.cost, result.counts[number]
    return {
        cost.table_key: result.costs[number],
        "error_percent": 100 * (result.costs[number] / result.search.target - 1),
        "params": counts.params,
        "macs": counts.macs,
        "top1": result.measure(INHERITED).values[number],
        "architecture": result.candidates[number].architecture.to_text(),
    }


def _stored_architecture(run: RunDirectory) -> Architecture | None:
    try:
        return Architecture.load(run.path)
    except InputError:
        return None
