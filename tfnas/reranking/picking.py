"""Which network the run directory holds after re-ranking: the derived one, or the first of the combined ranking."""

from __future__ import annotations

from typing import Any

from tfnas.architecture import Architecture
from tfnas.errors import InputError
from tfnas.parse.source import DERIVED
from tfnas.reranking.config import INHERITED
from tfnas.reranking.result import Reranking
from tfnas.run import SUMMARY_FILE, RunDirectory

PICKED_BY = "picked_by"


def put_in_place(result: Reranking, run: RunDirectory) -> None:
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
