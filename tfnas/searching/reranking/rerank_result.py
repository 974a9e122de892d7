"""Ranks, and several of them combined into one.

What re-ranking found: every candidate with its numbers and ranks, and the two files that hold them.

Which network the run directory holds after re-ranking: the derived one, or the first of the combined ranking.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.counts import Counts
from tfnas.core.errors import InputError
from tfnas.runs.architecture_source import DERIVED
from tfnas.runs.run_directory import SUMMARY_FILE, RunDirectory
from tfnas.searching.differentiable.candidates import Candidate
from tfnas.searching.reranking.finished_search import FinishedSearch
from tfnas.searching.reranking.rerank_config import INHERITED, RerankConfig
from tfnas.searching.reranking.score_calibration import ScoreCalibration

FloatArray = NDArray[np.float64]


def ranks(values: Sequence[float], higher_is_better: bool) -> FloatArray:
    """1 for the best of the values [n]; equal values share the mean of their places."""
    signed = np.asarray(values, dtype=np.float64) * (-1 if higher_is_better else 1)
    # as scipy.stats.rankdata, whose import takes longer than the rest of a small re-ranking
    _, places, counts = np.unique(signed, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places], dtype=np.float64)


def log_rank_sums(rankings: Sequence[FloatArray]) -> FloatArray:
    """Sums of the logarithms of ranks, [n] of each of the rankings; the smallest is the best (AZ-NAS, CVPR 2024).

    The logarithm makes it matter more to be second rather than tenth than to be fortieth rather than forty-eighth.
    """
    return np.asarray(np.sum(np.log(np.stack(rankings)), axis=0), dtype=np.float64)


def combined_order(rankings: Sequence[FloatArray]) -> list[int]:
    """Indices from best to worst; among equal sums, the order that they have (the derived architecture is first)."""
    sums = np.round(log_rank_sums(rankings), 9)  # the same ranks in another order add up to the same
    return [int(index) for index in np.argsort(sums, kind="stable")]


CSV_FILE = "rerank.csv"
JSON_FILE = "rerank.json"
PLOT_FILE = "rerank.png"
JSON_FORMAT = "tfnas-rerank"


@dataclass(frozen=True)
class Measured:
    """A measure of all candidates [n]. `ranked` says whether to rank by it: the user asked so, and it is no control."""

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
        """The values turned so that higher is better."""
        return [value if self.higher_is_better else -value for value in self.values]


@dataclass(frozen=True)
class Reranking:
    """Candidates in the order of their draws (the derived one first), with what was found of each.

    `used` names the measures that are combined; where it is empty (none was to be ranked by, or none beat MACs), there
    is no combined ranking and `order` is that of the draws.
    """

    config: RerankConfig
    subject: FinishedSearch
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
    def picked(self) -> int:
        """The number of the candidate that the run directory is to hold."""
        return self.order[0] if self.config.pick == "rank" and self.used else 0

    def measure(self, name: str) -> Measured:
        """The measure of a name."""
        return next(item for item in self.measures if item.name == name)

    # ---- files ------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """A record of every candidate, best first."""
        order, sums = self.order, self.log_rank_sums
        trained = {} if self.calibration is None else self.calibration.top1_of
        columns = [(item.name, item.values, item.ranks) for item in self.measures]
        rows = []
        for place, number in enumerate(order, 1):
            candidate = self.candidates[number]
            row: dict[str, Any] = {
                "rank": place if sums is not None else None,
                "candidate": number,
                "derived": candidate.is_derived,
                "log_rank_sum": None if sums is None else sums[number],
                self.subject.cost.table_key: self.costs[number],
                "params": self.counts[number].params,
                "macs": self.counts[number].macs,
            }
            for name, values, places in columns:
                row[_column(name)], row[f"{name}_rank"] = values[number], places[number]
            row |= {"trained_top1": trained.get(number), "preference": candidate.preference}
            row |= {"temperature": candidate.temperature, "architecture": candidate.architecture.to_text()}
            rows.append(row)
        return rows

    def to_csv(self) -> str:
        """The records as CSV with a header; what is not known is empty."""
        rows = self.rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Everything, with the settings and where the derived architecture stands."""
        subject, picked = self.subject, self.picked
        return {
            "format": JSON_FORMAT,
            "version": 1,
            "settings": dataclasses.asdict(self.config),
            "search": str(subject.run_dir),
            "cost": subject.cost.name,
            subject.cost.target_key: subject.target,
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


PICKED_BY = "picked_by"


def write_selection(result: Reranking, run: RunDirectory) -> None:
    """Write the picked architecture and its numbers, unless they are there already.

    The summary keeps the numbers of the derived architecture beside those of another one.
    """
    before, number = result.subject.summary, result.picked
    own = before.get(DERIVED) or {name: before.get(name) for name in _numbers(result, 0)}
    summary = {name: value for name, value in before.items() if name not in (DERIVED, PICKED_BY)}
    summary |= own if number == 0 else {**_numbers(result, number), PICKED_BY: "rank", DERIVED: own}
    picked = result.candidates[number].architecture
    if summary == before and _held(run) == picked:
        return
    run.write_architecture(picked)
    run.write_json(SUMMARY_FILE, summary)


def _numbers(result: Reranking, number: int) -> dict[str, Any]:
    """What a summary says of an architecture, under the summary's names."""
    cost, counts = result.subject.cost, result.counts[number]
    return {
        cost.table_key: result.costs[number],
        "error_percent": 100 * (result.costs[number] / result.subject.target - 1),
        "params": counts.params,
        "macs": counts.macs,
        "top1": result.measure(INHERITED).values[number],
        "architecture": result.candidates[number].architecture.to_text(),
    }


def _held(run: RunDirectory) -> Architecture | None:
    try:
        return Architecture.load(run.path)
    except InputError:
        return None
