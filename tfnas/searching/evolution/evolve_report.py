"""What a person reads of an evolutionary search, and the numbers of its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfnas.runs.run_directory import RunDirectory
from tfnas.runs.run_reporter import files_line, network_line, time_line
from tfnas.searching.evolution.budgets import FIGURES
from tfnas.searching.evolution.evolve_setup import EvolveSetup
from tfnas.searching.evolution.population import REFINED, Member, Population
from tfnas.searching.evolution.search_history import HISTORY_FILE, SearchHistory
from tfnas.spaces.families import architecture_counts, original_form
from tfnas.spaces.zen.zen_family import STRUCTURE_FILE, StructureArchitecture
from tfnas.utils.text import command_line

POPULATION_FILE = "population.json"
PICTURE_FILE = "evolution.png"
BEST_STRUCTURE_FILE = "best_structure.txt"
"""As the original programs call it."""
_OF_EPOCHS = ("best", "median", "diversity")


def description(setup: EvolveSetup) -> list[str]:
    """What is searched, by which score, within which budgets, and where."""
    config, start = setup.config, setup.first.architecture
    budgets = ", ".join(f"at most {FIGURES[name].quantity(limit, 6)}" for name, limit in setup.budgets.limits.items())
    jobs = f"{setup.scorer.jobs} worker processes" if setup.scorer.in_workers else "this process"
    images = [] if setup.data is None else [f"data      {setup.data.describe()}"]
    table = [] if setup.table is None else [f"table     {setup.table.description}"]
    score = str(setup.objective)
    if not setup.objective.by_rank:  # ranks among one network say nothing
        score += f", {setup.objective.shown(setup.objective.total(setup.first.scores)):.6g} at the start"
    return [
        *images,
        *table,
        f"space     {config.space}, images of {start.image_size} px, {start.num_classes} classes",
        f"start     {figures_text(setup.first.figures, setup.figure_names)}",
        f"budgets   {budgets or 'none: the largest network that the space has is likely to win'}",
        f"score     {score}",
        f"search    {config.iterations} networks, {config.children} at a time, from a population of up to "
        f"{config.population}, seed {config.seed}, scored in {jobs}",
    ]


def figures_text(figures: tuple[float, ...], names: tuple[str, ...]) -> str:
    """Figures of a network in a line."""
    return ", ".join(f"{name} {FIGURES[name].number(value)}" for name, value in zip(names, figures, strict=True))


def progress_text(averages: Mapping[str, float]) -> str:
    """Best, median and diversity, then the shares of outcomes that there are."""
    numbers = [f"{name} {averages[name]:.6g}" for name in _OF_EPOCHS if name in averages]
    shares = [(name, value) for name, value in averages.items() if name not in (*_OF_EPOCHS, "epoch") and value]
    return "  ".join([*numbers, *(f"{name.replace('_', ' ')} {value:.0f} %" for name, value in shares)])


def result_numbers(setup: EvolveSetup, best: Member, population: Population, history: SearchHistory) -> dict[str, Any]:
    """The result's numbers for `summary.json`, and what was searched."""
    counts, config = architecture_counts(best.architecture), setup.config
    figures = dict(zip(setup.figure_names, best.figures, strict=True))
    return {
        "score": setup.objective.shown(best.value),
        "scores": dict(zip(setup.objective.names, best.scores, strict=True)),
        "params": counts.params,
        "macs": counts.macs,
        "layers": round(figures["layers"]),
        "figures": figures,
        "budgets": dict(setup.budgets.limits),
        "architecture": best.architecture.to_text(),
        "image_size": best.architecture.image_size,
        "num_classes": best.architecture.num_classes,
        "space": config.space,
        "objective": config.score,
        "combine": config.combine,
        "found": None if best.found == REFINED else best.found,
        "iterations": history.length,
        "outcomes": dict(history.counts()),
        "population": len(population),
        **({} if setup.data is None else {"data": setup.data.name, "class_names": list(setup.data.class_names)}),
        **_latency_numbers(setup, figures),
        "start": setup.first.architecture.to_text(),
        "start_scores": dict(zip(setup.objective.names, setup.first.scores, strict=True)),
    }


def _latency_numbers(setup: EvolveSetup, figures: Mapping[str, float]) -> dict[str, Any]:
    """Target, latency and table, under the names that every summary has for them; nothing without a table."""
    table, target = setup.table, setup.config.target_lat
    if table is None:
        return {}
    reached = figures[table.cost.name]
    error = {} if target is None else {table.cost.target_key: target, "error_percent": 100 * (reached / target - 1)}
    return {
        "cost": table.cost.name,
        table.cost.table_key: reached,
        **error,
        "lookup_path": setup.lookup_path,
        "table_fingerprint": table.fingerprint,
        "table_description": table.description,
    }


def population_document(population: Population, figure_names: tuple[str, ...]) -> dict[str, Any]:
    """`population.json`: all members with their numbers, the best first."""
    objective = population.objective
    return {
        "score_names": list(objective.names),
        "figure_names": list(figure_names),
        "members": [
            {
                "score": objective.shown(member.value),
                "scores": list(member.scores),
                "figures": list(member.figures),
                "found": member.found,
                "architecture": member.architecture.to_text(),
            }
            for member in population.best_first
        ],
    }


def show_results(run: RunDirectory, best: Any, summary: Mapping[str, Any]) -> None:
    """Print what was found."""
    original, started = original_file(best), summary["start_scores"]
    scores = ", ".join(f"{name} {value:.6g} (start {started[name]:.6g})" for name, value in summary["scores"].items())
    drawn = f"in iteration {summary['found']}"
    where = drawn if summary["found"] is not None else "by refining the widths of the best"
    for line in (
        "",
        f"found     {where} of {summary['iterations']}: {scores}",
        *_budget_lines(summary),
        network_line(summary),
        f"drawn     {_outcomes_text(summary['outcomes'])}",
        time_line(summary),
        files_line(
            run, "architecture.json", *([original] if original else []), POPULATION_FILE, HISTORY_FILE, PICTURE_FILE
        ),
        f"next      {command_line('parse', '--model_path', run.path)}",
        f"          {_training(run, best, summary)}",
    ):
        run.say(line)


def _training(run: RunDirectory, best: Any, summary: Mapping[str, Any]) -> str:
    """How the network is trained: by a command, or one of videos by a program of the user's."""
    if isinstance(best, StructureArchitecture) and best.is_video:
        network = (
            f"StructureNetwork(tfnas.load_architecture({str(run.path)!r}).structure, num_classes={best.num_classes})"
        )
        return f"in Python, to train on videos: tfnas.{network}"
    data = [] if "data" in summary else ["--data", "folder", "--train_root", "IMAGES"]
    return command_line("train", "--model_path", run.path, *data)


def original_file(architecture: Any) -> str | None:
    """What the file of a network in the form of the program that it is known from is called here, if there is one."""
    form = original_form(architecture)
    return None if form is None else BEST_STRUCTURE_FILE if form[0] == STRUCTURE_FILE else form[0]


def _budget_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """How much of every budget the network takes."""
    if summary["budgets"]:
        figures = summary["figures"]
        yield "budgets   " + ", ".join(
            f"{FIGURES[name].number(figures[name], 6)} of {FIGURES[name].quantity(limit, 6)} "
            f"({100 * figures[name] / limit:.1f} %)"
            for name, limit in summary["budgets"].items()
        )


def _outcomes_text(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in outcomes.items() if count)
