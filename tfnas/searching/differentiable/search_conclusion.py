"""The result of a search: the architecture that meets the target, its numbers, and a summary a person can read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.core.cost import COSTS
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import meet_target
from tfnas.nn.classification_metrics import Batches
from tfnas.runs.run_directory import RunDirectory
from tfnas.runs.run_reporter import files_line, network_line, time_line
from tfnas.searching.differentiable.architecture_parameters import sample_path
from tfnas.searching.differentiable.candidates import draw_candidates
from tfnas.searching.differentiable.inherited_evaluation import (
    SanityNetworks,
    derived_accuracy,
    evaluate_inherited,
    path_accuracy,
)
from tfnas.searching.differentiable.search_setup import SearchSetup, probe_images
from tfnas.searching.differentiable.search_text import (
    EVALUATED_PATHS,
    UNIFORM_ENTROPY,
    depth_entropy,
    near_chance,
    operation_entropy,
)
from tfnas.searching.differentiable.supernet_learner import SupernetLearner, learned_choice
from tfnas.spaces.families import architecture_counts
from tfnas.utils.text import command_line, percent

Evaluating = Callable[[str, int], Batches]
"""Takes what is evaluated, in words, and how many networks that is; gives the batches of the held-out part."""


def choose_architecture(
    learner: SupernetLearner, setup: SearchSetup, evaluating: Evaluating, on_draw: Callable[[int], None]
) -> tuple[Architecture, dict[str, Any]]:
    """The architecture that meets the target, and the numbers of the evaluation of candidates.

    Of one candidate, it is the derived one. Of several, it is that one whose inherited weights have the lowest loss on
    the held-out part: operations and depths evaluated together, at their own widths. `on_draw` is called in rank 0,
    which draws them, with the number of new ones, after every draw.

    Raises Infeasible when no architecture of the space lies in the band below the target.
    """
    choice, count, already = learned_choice(learner), setup.schedule.candidates, 1

    def drawn(number: int) -> None:
        nonlocal already
        new, already = number - already, number
        on_draw(new)

    def draw() -> str:
        derived = meet_target(choice, setup.table, setup.target_ms)
        if count == 1:
            return derived.to_text()
        found = draw_candidates(choice, setup.table, setup.target_ms, derived, count, setup.config.seed, drawn)
        return "\n".join(candidate.architecture.to_text() for candidate in found)

    texts = setup.processes.from_rank_zero(draw).splitlines()
    candidates = [Architecture.parse(text) for text in texts]
    if len(candidates) == 1:
        return candidates[0], {}
    batches = evaluating(f"evaluating {len(candidates)} candidates", len(candidates))
    losses = [found.loss for found in evaluate_inherited(learner.supernet, candidates, batches, setup.processes)]
    best = min(range(len(candidates)), key=losses.__getitem__)
    numbers = {"candidates": len(candidates), "derived_loss": losses[0], "chosen_loss": losses[best]}
    return candidates[best], numbers | {"derived_architecture": texts[0]}


def evaluate_result(
    learner: SupernetLearner, setup: SearchSetup, architecture: Architecture, evaluating: Evaluating
) -> tuple[float, float]:
    """Top-1 in percent, with inherited weights on the held-out part: of the result, and the mean of sampled paths."""
    supernet, parameters, where = learner.supernet, learner.parameters, (setup.device, setup.processes)
    top1 = derived_accuracy(supernet, architecture, evaluating("evaluating the result", 1), *where)
    noise, depth_weights = torch.Generator().manual_seed(setup.config.seed), parameters.depth_weights()
    paths = [sample_path(parameters.log_alphas, noise) for _ in range(EVALUATED_PATHS)]
    of_paths = [
        path_accuracy(supernet, path, depth_weights, evaluating("evaluating the result", 1), *where) for path in paths
    ]
    return top1, float(np.mean(of_paths))


def result_numbers(setup: SearchSetup, choice: Choice, architecture: Architecture) -> dict[str, Any]:
    """The result's numbers for `summary.json`, and on what it was searched."""
    counts = architecture_counts(architecture)
    cost, reached = setup.table.cost, setup.table.architecture_ms(architecture)
    return {
        "cost": cost.name,
        cost.target_key: setup.target_ms,
        cost.table_key: reached,
        "error_percent": 100 * (reached / setup.target_ms - 1),
        "params": counts.params,
        "macs": counts.macs,
        "chance_top1": 100 / setup.data.num_classes,
        "operation_entropy": operation_entropy(choice),
        "depth_entropy": depth_entropy(choice),
        "architecture": architecture.to_text(),
        "space": setup.space.name,
        "space_fingerprint": setup.space.fingerprint,
        "data": setup.data.name,
        "num_classes": setup.data.num_classes,
        "class_names": list(setup.data.class_names),
        "image_size": setup.data.image_size,
        "lookup_path": setup.lookup_path,
        "table_fingerprint": setup.table.fingerprint,
        "table_description": setup.table.description,
    }


def sanity_numbers(
    setup: SearchSetup, sanity: SanityNetworks, history: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """The sanity networks and the last epoch's numbers of them; nothing where they were not evaluated then."""
    if not history or "probe_loss" not in history[-1]:  # a run that an older version ended
        return {}
    numbers = {name: value for name, value in history[-1].items() if name.startswith("probe_")}
    networks = [network.to_text() for network in sanity.networks]
    return {"probe_networks": networks, "probe_images": probe_images(setup), **numbers}


def show_results(
    run: RunDirectory, choice: Choice, architecture: Architecture, summary: Mapping[str, Any], table: LatencyTable
) -> None:
    """Print what was found and whether to believe it."""
    run.show(_decisions(choice, architecture))
    chance, supernet_top1 = summary["chance_top1"], summary["supernet_top1"]
    cost = COSTS[summary["cost"]]
    words = "table latency" if cost.is_time else "the network has"
    for line in (
        "",
        f"target    {cost.quantity(summary[cost.target_key], 6)}; {words} {cost.quantity(summary[cost.table_key], 5)} "
        f"({percent(summary['error_percent'])})",
        network_line(summary),
        f"supernet  sampled paths {supernet_top1:.1f} % on the held-out part (chance {chance:.1f} %); the result's "
        f"path {summary['top1']:.1f} % with inherited weights",
        *_probe_lines(summary),
        *_candidate_lines(summary),
        f"decided   operation entropy {summary['operation_entropy']:.2f}, depth entropy {summary['depth_entropy']:.2f} "
        f"(1 undecided, 0 decided){_verdict(summary)}",
        time_line(summary),
        files_line(run, "architecture.json", "model.config"),
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


def _candidate_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the evaluation of candidates changed."""
    if "candidates" not in summary:
        return []
    unchanged = summary["chosen_loss"] == summary["derived_loss"]
    other = "which is the derived one" if unchanged else f"the derived one has {summary['derived_loss']:.3f}"
    return [
        f"chosen    the lowest held-out loss with inherited weights, {summary['chosen_loss']:.3f}, of "
        f"{summary['candidates']} candidates at the target; {other}"
    ]


def _probe_lines(summary: Mapping[str, Any]) -> list[str]:
    """How the sanity networks fare, and how far the architecture parameters agree."""
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
        f"          in {100 * summary['probe_ordered']:.0f} % of their {number * (number - 1) // 2} pairs the more "
        f"probable one has the lower loss (tau {summary['probe_tau']:+.2f}{interval})",
    ]


def _verdict(summary: Mapping[str, Any]) -> str:
    if near_chance(summary["supernet_top1"], summary["chance_top1"]):
        return "; the supernet is near chance, so this choice means little: train it longer (--epochs, --w_lr)"
    if summary["operation_entropy"] > UNIFORM_ENTROPY:
        return "; operations are undecided, so this choice is near random: search longer or raise --a_lr"
    return ""


def _decisions(choice: Choice, architecture: Architecture) -> Table:
    """Per block: what was taken, how probable it is, its width and range; blocks left out are shown as such."""
    table = Table(title="Search result", title_justify="left")
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
