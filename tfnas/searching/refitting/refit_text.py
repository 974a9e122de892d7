"""What a closed loop tells: to a person line by line, to a script in `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfnas.searching.refitting.certificate import MeasuredUnder, certificate_lines, verdict_text
from tfnas.searching.refitting.refit_loop import Goal, Phase, RefitResult, TimedNetwork
from tfnas.searching.refitting.refit_plan import RefitPlan
from tfnas.spaces.families import architecture_counts
from tfnas.utils.text import clock, command_line, percent, short, typed


def announcement(plan: RefitPlan, path: Path) -> list[str]:
    """What is brought to which target, timed where."""
    measured, goal, table = plan.table.contents.measurement, plan.goal, plan.table
    here = plan.bench.device_name
    table_ms = table.architecture_ms(plan.source.architecture)
    lines = [
        f"run       {path}",
        f"network   {plan.source.kind} in {plan.config.model_path}; its table says {table_ms:.4g} ms",
        f"table     {table.description}",
        f"target    {goal.target_ms:g} ms within {100 * goal.epsilon:g} %, timed as a whole on {here}",
    ]
    if measured is not None and measured.device != here:
        lines.append(
            f"warning: the table was measured on {measured.device}, this is {here}: the certificate "
            "holds for the latter, and widths are fitted by the former's table times what is measured"
        )
    fingerprint = plan.source.table_fingerprint
    if fingerprint is not None and fingerprint != table.fingerprint:
        lines.append("note: this table is not the one of the search, or has changed since")
    return [*lines, *(f"note: {note}" for note in plan.source.notes)]


def phase_text(phase: Phase, goal: Goal) -> str:
    """What is timed now, for a line that changes."""
    what = f"fit {phase.number} of {goal.iterations} at most" if phase.purpose == "fit" else "for the certificate"
    return f"timing the network, {what}; {clock(phase.most_seconds)} at most, besides what prepares it"


def point_line(point: TimedNetwork, goal: Goal) -> str:
    """One measurement."""
    low, high = point.found.interval_ms
    interval = f"{low:.4g} to {high:.4g} ms; " if point.purpose == "certify" else ""
    return (
        f"{'timed' if point.purpose == 'fit' else 'certify':<10}table {point.table_ms:.4g} ms, measured "
        f"{point.found.median_ms:.4g} ms ({interval}{point.found.runs} runs): "
        f"{percent(100 * (point.found.median_ms / goal.target_ms - 1))} from the target"
    )


def summary(plan: RefitPlan, closed: RefitResult, under: MeasuredUnder, seconds: float) -> dict[str, Any]:
    """The numbers that a script or a person wants, as `summary.json` holds them."""
    point, goal, source = closed.point, plan.goal, plan.source
    counts = architecture_counts(point.architecture)
    return {
        "cost": "ms",
        "target_ms": goal.target_ms,
        "table_ms": point.table_ms,
        "measured_ms": point.found.median_ms,
        "error_percent": 100 * (point.found.median_ms / goal.target_ms - 1),
        "epsilon": goal.epsilon,
        "verdict": closed.verdict,
        "supported_epsilon": point.found.supported_epsilon(goal.target_ms),
        "certificate": {**point.found.to_json(), "conditions": under.to_json()},
        "certificates": closed.certificates,
        "ending": closed.ending,
        "widths_reach_ms": list(closed.bounds_ms),
        "params": counts.params,
        "macs": counts.macs,
        "top1": None,
        "architecture": point.architecture.to_text(),
        "architecture_before": source.architecture.to_text(),
        "seed": plan.config.seed,
        "seconds": {"calls": sum(found.found.seconds for found in closed.points), "total": seconds},
        "data": plan.config.data,
        "space": plan.config.space,
        "num_classes": point.architecture.num_classes,
        "image_size": point.architecture.image_size,
        "lookup_path": plan.config.lookup_path,
        "table_fingerprint": plan.table.fingerprint,
        "table_description": plan.table.description,
        "history": [found.to_json() for found in closed.points],
    }


def conclusion(plan: RefitPlan, closed: RefitResult, under: MeasuredUnder) -> list[str]:
    """The certificate, and what it says about the target."""
    first, *more = certificate_lines(closed.point.found)
    counts = architecture_counts(closed.point.architecture)
    words = verdict_text(closed.point.found, plan.goal.target_ms, plan.goal.epsilon)
    return [
        "",
        f"measured  {first}",
        *(f"          {line}" for line in more),
        f"          {under.description}",
        f"          {_certificates(closed)}",
        f"target    {words}",
        f"network   {short(counts.params)} parameters, {short(counts.macs)} MACs",
    ]


def next_steps(plan: RefitPlan, closed: RefitResult, path: Path) -> list[str]:
    """Where the result is, and what to do with it: train it, from the weights of its search where these are there."""
    searched_in = plan.config.searched_in
    inherits = searched_in is not None and Path(searched_in).is_dir()
    lines = [f"files     {typed(path)}: architecture.json, model.config, summary.json, config.yaml, log.txt"]
    if closed.verdict == "inside":
        lines.append(f"next      {command_line('train', '--inherit' if inherits else '--model_path', path)}")
    return lines


def refusal(plan: RefitPlan, closed: RefitResult, path: Path) -> str:
    """Why the network is not certified, what was reached, and what might help."""
    goal, found = plan.goal, closed.point.found
    low, high = closed.bounds_ms
    text = f"{verdict_text(found, goal.target_ms, goal.epsilon)}. "
    text += (
        f"Reached were {found.median_ms:.4g} ms; {closed.ending}. Widths alone reach about {low:.4g} to {high:.4g} ms"
        f"{'' if low < goal.target_ms < high else ': other operations and depths are for another search'}. "
    )
    if closed.verdict != "outside" and found.half_width > goal.epsilon / 2:
        text += "A quieter machine or a longer --time_budget narrows the interval. "
    of_it = "The nearest network" if closed.certificates == 1 else "The network that was certified last"
    return f"{text}{_certificates(closed).capitalize()}. {of_it} and its certificate are in {typed(path)}"


def _certificates(closed: RefitResult) -> str:
    """How often luck had a chance."""
    if closed.certificates == 1:
        return "one certificate was made"
    return f"{closed.certificates} certificates were made, each of another network; this is the last"
