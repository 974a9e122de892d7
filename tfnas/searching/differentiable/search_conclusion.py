"""The end of a search: the architecture that meets the target, its numbers, and a summary a person can read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.core.cost import COSTS
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import meet_target
from tfnas.runs.run_directory import SUMMARY_FILE, RunDirectory
from tfnas.searching.differentiable.architecture_parameters import sample_path
from tfnas.searching.differentiable.candidates import draw_candidates
from tfnas.searching.differentiable.derive import accuracy, choice_of, derived_accuracy
from tfnas.searching.differentiable.forecast import JUDGED_PATHS
from tfnas.searching.differentiable.health import UNIFORM_ENTROPY, depth_entropy, near_chance, operation_entropy
from tfnas.searching.differentiable.sanity_networks import evaluate_inherited
from tfnas.searching.differentiable.search_batches import probe_images
from tfnas.searching.differentiable.search_reporter import Reporter
from tfnas.searching.differentiable.search_session import Session
from tfnas.spaces.families import architecture_counts
from tfnas.utils.devices import instruction_sets
from tfnas.utils.text import clock, command_line, percent, short, typed

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def conclude(
    session: Session, run: RunDirectory, held_out: Batches, reporter: Reporter
) -> tuple[Architecture, dict[str, Any]]:
    """Choose the architecture, judge it with inherited weights, write and show everything. It trains nothing.

    Of several processes the first one chooses, writes and shows; all judge.

    Raises Infeasible when no architecture of the space lies in the band below the target.
    """
    start = time.perf_counter()
    choice = choice_of(session.learner)
    architecture, judged = _chosen(session, choice, held_out, reporter)
    supernet, device, processes = session.learner.supernet, session.setup.device, session.setup.processes

    def shown() -> Iterable[tuple[Tensor, Tensor]]:
        return reporter.evaluating("evaluating the result", 1, held_out())

    top1 = derived_accuracy(supernet, architecture, shown(), device, processes)
    noise = torch.Generator().manual_seed(session.setup.config.seed)
    depth_weights = session.learner.parameters.depth_weights()
    paths = [sample_path(session.learner.parameters.log_alphas, noise) for _ in range(JUDGED_PATHS)]
    paths_top1 = [accuracy(supernet, path, depth_weights, shown(), device, processes) for path in paths]
    session.spend("conclusion", time.perf_counter() - start)
    summary = summarize(session, choice, architecture, top1, float(np.mean(paths_top1))) | judged
    if not processes.is_rank_zero:
        return architecture, summary
    run.write_architecture(architecture)
    run.write_json(SUMMARY_FILE, summary)
    show(run, choice, architecture, summary, session.setup.table)
    return architecture, summary


def _chosen(
    session: Session, choice: Choice, held_out: Batches, reporter: Reporter
) -> tuple[Architecture, dict[str, Any]]:
    """The architecture that meets the target, and what the judging of candidates said.

    Of one candidate, it is the derived one. Of several, drawn by the first process, it is that one whose inherited
    weights have the lowest loss on the held-out part: operations and depths judged together, at their own widths.
    """
    processes, setup = session.setup.processes, session.setup
    count = setup.schedule.candidates

    def draw() -> bytes | None:
        if not processes.is_rank_zero:
            return None
        derived = meet_target(choice, setup.table, setup.target_ms)
        if count == 1:
            return derived.to_text().encode()
        found = draw_candidates(choice, setup.table, setup.target_ms, derived, count, setup.config.seed, reporter.drawn)
        return "\n".join(candidate.architecture.to_text() for candidate in found).encode()

    texts = (processes.broadcast_bytes(processes.barrier(draw)) or b"").decode().splitlines()
    candidates = [Architecture.parse(text) for text in texts]
    if len(candidates) == 1:
        return candidates[0], {}
    batches = reporter.evaluating(f"evaluating {len(candidates)} candidates", len(candidates), held_out())
    losses = [found.loss for found in evaluate_inherited(session.learner.supernet, candidates, batches, processes)]
    best = min(range(len(candidates)), key=losses.__getitem__)
    numbers = {"candidates": len(candidates), "derived_loss": losses[0], "chosen_loss": losses[best]}
    return candidates[best], numbers | {"derived_architecture": texts[0]}


def summarize(
    session: Session, choice: Choice, architecture: Architecture, top1: float, supernet_top1: float
) -> dict[str, Any]:
    """The numbers that a script or a person wants, as `summary.json` holds them."""
    setup = session.setup
    counts = architecture_counts(architecture)
    cost, reached = setup.table.cost, setup.table.architecture_ms(architecture)
    return {
        "cost": cost.name,
        cost.target_key: setup.target_ms,
        cost.table_key: reached,
        "error_percent": 100 * (reached / setup.target_ms - 1),
        "params": counts.params,
        "macs": counts.macs,
        "top1": top1,
        "supernet_top1": supernet_top1,
        "chance_top1": 100 / setup.data.num_classes,
        "operation_entropy": operation_entropy(choice),
        "depth_entropy": depth_entropy(choice),
        "architecture": architecture.to_text(),
        "seed": setup.config.seed,
        "processes": setup.processes.world_size,
        "instruction_sets": list(instruction_sets()),
        "seconds": {**session.seconds, "total": sum(session.seconds.values())},
        "space": setup.space.name,
        "space_fingerprint": setup.space.fingerprint,
        "data": setup.data.name,
        "num_classes": setup.data.num_classes,
        "class_names": list(setup.data.class_names),
        "image_size": setup.data.image_size,
        "lookup_path": setup.lookup_path,
        "table_fingerprint": setup.table.fingerprint,
        "table_description": setup.table.description,
        **_probed(session),
        "history": session.history,
    }


def _probed(session: Session) -> dict[str, Any]:
    """The probe networks and what the last epoch said of them; nothing where they were not judged then."""
    last = session.history[-1] if session.history else {}
    if session.probes is None or "probe_loss" not in last:  # a run that an older version ended
        return {}
    numbers = {name: value for name, value in last.items() if name.startswith("probe_")}
    networks = [network.to_text() for network in session.probes.networks]
    return {"probe_networks": networks, "probe_images": probe_images(session.setup), **numbers}


def show(
    run: RunDirectory, choice: Choice, architecture: Architecture, summary: dict[str, Any], table: LatencyTable
) -> None:
    """Print what was found and whether to believe it."""
    run.show(_decisions(choice, architecture))
    chance, supernet_top1 = summary["chance_top1"], summary["supernet_top1"]
    seconds = summary["seconds"]
    phases = ", ".join(f"{name.replace('_', ' ')} {clock(value)}" for name, value in seconds.items() if name != "total")
    cost = COSTS[summary["cost"]]
    words = "table latency" if cost.is_time else "the network has"
    for line in (
        "",
        f"target    {cost.quantity(summary[cost.target_key], 6)}; {words} {cost.quantity(summary[cost.table_key], 5)} "
        f"({percent(summary['error_percent'])})",
        f"network   {short(summary['params'])} parameters, {short(summary['macs'])} MACs",
        f"supernet  sampled paths {supernet_top1:.1f} % on the held-out part (chance {chance:.1f} %); the result's "
        f"path {summary['top1']:.1f} % with inherited weights",
        *_probe_lines(summary),
        *_candidate_lines(summary),
        f"decided   operation entropy {summary['operation_entropy']:.2f}, depth entropy {summary['depth_entropy']:.2f} "
        f"(1 undecided, 0 decided){_verdict(summary)}",
        f"took      {clock(seconds['total'])}: {phases}",
        f"files     {typed(run.path)}: architecture.json, model.config, summary.json, tensorboard/, log.txt",
        f"next      {command_line('parse', '--model_path', run.path)}",
        *(f"          {line}" for line in _close_command(run, table)),
        f"          {command_line('train', '--inherit', run.path)}",
    ):
        run.say(line)


def _close_command(run: RunDirectory, table: LatencyTable) -> Iterator[str]:
    """The command that fits the network itself, where its table was measured and its kind of device is here."""
    measured = table.contents.measurement
    if measured is None or not table.cost.is_time:
        return
    if measured.worker:
        yield command_line("latency close", "--model_path", run.path, "--worker", "COMMAND")
    elif measured.device_kind == "cpu" or torch.cuda.is_available():
        yield command_line("latency close", "--model_path", run.path)


def _candidate_lines(summary: dict[str, Any]) -> list[str]:
    """What the judging of candidates changed."""
    if "candidates" not in summary:
        return []
    kept = summary["chosen_loss"] == summary["derived_loss"]
    other = "the derived one is it" if kept else f"the derived one has {summary['derived_loss']:.3f}"
    return [
        f"chosen    the lowest held-out loss with inherited weights, {summary['chosen_loss']:.3f}, of "
        f"{summary['candidates']} candidates at the target; {other}"
    ]


def _probe_lines(summary: dict[str, Any]) -> list[str]:
    """How the probe networks fare, and how far the architecture parameters agree."""
    if "probe_loss" not in summary:
        return []
    number = len(summary["probe_networks"])
    line = (
        f"probes    {number} random networks at the target: {summary['probe_top1']:.1f} % with inherited weights, "
        f"loss {summary['probe_loss']:.3f}, on {summary['probe_images']} held-out images"
    )
    if "probe_tau" not in summary:
        return [line]
    interval = ""
    if "probe_tau_low" in summary:
        interval = f", 95 % interval {summary['probe_tau_low']:+.2f} to {summary['probe_tau_high']:+.2f}"
    return [
        line,
        f"          of their {number * (number - 1) // 2} pairs the search prefers the one of lower loss in "
        f"{100 * summary['probe_ordered']:.0f} % (tau {summary['probe_tau']:+.2f}{interval})",
    ]


def _verdict(summary: dict[str, Any]) -> str:
    if near_chance(summary["supernet_top1"], summary["chance_top1"]):
        return "; the supernet is near chance, so this choice means little: train it longer (--epochs, --w_lr)"
    if summary["operation_entropy"] > UNIFORM_ENTROPY:
        return "; operations are undecided, so this choice is near random: search longer or raise --a_lr"
    return ""


def _decisions(choice: Choice, architecture: Architecture) -> Table:
    """Per block: what was taken, how probable it is, its width and range; blocks left out are shown as such."""
    table = Table(title="What the search decided", title_justify="left")
    for name in ("block", "operation", "probability", "width", "range", "depth probabilities"):
        table.add_column(name, justify="right" if name in ("probability", "width") else "left")
    space = choice.space
    taken = {(place.stage, place.position): place.block for place in architecture.blocks}
    for number, place in enumerate(space.blocks):
        depths = ""
        if place.position == 0:
            pairs = zip(space.depth_choices[place.stage], choice.log_depths[place.stage], strict=True)
            depths = "  ".join(f"{depth}: {math.exp(value):.2f}" for depth, value in pairs)
        block = taken.get((place.stage, place.position))
        if block is None:
            table.add_row(place.name, "left out", "", "", "", depths)
            continue
        index = space.operation_index(place, block)
        probability = f"{math.exp(choice.log_alphas[number, index]):.2f}"
        low, high = block.mid_range
        width_range = "fixed" if low == high else f"{low}-{high}"
        operation = space.operations[index].name
        table.add_row(place.name, operation, probability, str(block.mid_channels), width_range, depths)
    return table
