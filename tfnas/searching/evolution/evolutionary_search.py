"""The evolutionary search, from a configuration to the best network within the budgets that was found.

    result = evolve(EvolveConfig(score="zen", max_params=1e6))

`result.architecture` is what to build, `result.run_dir` contains all files. The search follows ZenNAS (ICCV 2021): a
member of the population, drawn uniformly, is mutated; the new network joins if it is within all budgets, and the worst
one leaves. Unlike there, members are distinct, and a network without a finite score does not join.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from tfnas.core.architecture import RUN_FILE
from tfnas.core.errors import RunFailed
from tfnas.runs.algorithm import Algorithm, Show
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import BEST, EVOLVE_KIND, RunDirectory, State, write_forms
from tfnas.runs.run_settings import with_absolute_paths
from tfnas.runs.session import run_algorithm, with_resumed
from tfnas.searching.evolution.evolve_config import MAY_CHANGE, PATHS, RESCUES, EvolveConfig
from tfnas.searching.evolution.evolve_report import (
    PICTURE_FILE,
    POPULATION_FILE,
    description,
    original_file,
    population_document,
    progress_text,
    result_numbers,
    show_results,
)
from tfnas.searching.evolution.evolve_setup import EvolveSetup, prepare
from tfnas.searching.evolution.population import REFINED, Member, Population, population_diversity
from tfnas.searching.evolution.search_history import (
    DUPLICATE,
    HISTORY_FILE,
    JOINED,
    NO_SCORE,
    HistoryRows,
    SearchHistory,
)
from tfnas.searching.evolution.target_refinement import refine_to_target
from tfnas.spaces.families import parse_architecture
from tfnas.utils.files import write_whole
from tfnas.utils.garbage_collection import collecting_seldom

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SMALL_POPULATION = 10
"""While there are no more members than this, all children are mutations of the network that was started from."""
_REPORTS = 20
_ITERATIONS_PER_STEP = 256
"""Of closed forms, which take less time than what surrounds a step."""


@dataclass(frozen=True)
class EvolveResult:
    """What a search returns: the best network, where the run's files are, and the numbers of `summary.json`."""

    architecture: Any
    run_dir: Path
    summary: dict[str, Any]


def evolve(config: EvolveConfig, console: Console | None = None, given: Collection[str] | None = None) -> EvolveResult:
    """Search, or resume the search that `config.resume` names.

    `given` names the settings that were said, for a resumed run to compare with its own; by default those that differ
    from their defaults.

    Raises InputError, Infeasible (before anything is written), RunFailed and Interrupted (state saved).
    """
    config, resumed = with_resumed(config, EVOLVE_KIND, given, MAY_CHANGE)
    opened: list[EvolutionarySearch] = []

    def open_search(processes: DistributedContext) -> EvolutionarySearch:
        opened.append(EvolutionarySearch(prepare(config, processes)))
        return opened[0]

    try:
        with collecting_seldom():
            run_dir, summary = run_algorithm(config, open_search, console, resumed)
    finally:
        for search in opened:
            search.setup.scorer.close()
    return EvolveResult(parse_architecture(summary["architecture"]), run_dir, summary)


class EvolutionarySearch(Algorithm[int]):
    """A step is a number of iterations: as many as are drawn together, of closed forms many times that."""

    kind = EVOLVE_KIND
    rescues = RESCUES

    def __init__(self, setup: EvolveSetup) -> None:
        config = setup.config
        together = config.children
        if setup.objective.is_analytic:
            together *= math.ceil(_ITERATIONS_PER_STEP / together)
        steps = math.ceil(config.iterations / together)
        per_epoch = math.ceil(steps / min(_REPORTS, steps))
        epochs = math.ceil(steps / per_epoch)
        super().__init__(config, setup.processes, epochs=epochs, steps_per_epoch=per_epoch)
        self.setup, self.settings, self.iterations_per_step = setup, config, together
        self.generator = np.random.default_rng(config.seed)
        self.population: Population
        self.history: SearchHistory
        self.best: Member

    def build(self) -> None:
        """The population of the network that is started from."""
        setup = self.setup
        self.population = Population(self.settings.population, setup.objective)
        self.population.add([setup.first])
        self.history = SearchHistory(setup.objective.names, setup.figure_names, setup.budgets.names)

    # ---- one step ---------------------------------------------------------------------------------------------

    def batches(self) -> Iterable[int]:
        """How many iterations each of this epoch's steps has."""
        for step in range(self.progress.step, self.steps_per_epoch):
            first = (self.progress.epoch * self.steps_per_epoch + step) * self.iterations_per_step
            if first < self.settings.iterations:
                yield min(self.iterations_per_step, self.settings.iterations - first)

    def step(self, batch: int) -> None:
        """So many iterations."""
        with self.progress.timed("search"):
            rows = HistoryRows()
            for first in range(0, batch, self.settings.children):
                self._draw_children(min(self.settings.children, batch - first), rows)
            self.history.extend(rows)
            self.progress.add(**{self.history.outcomes[code]: rows.outcomes.count(code) for code in set(rows.outcomes)})

    def _draw_children(self, number: int, rows: HistoryRows) -> None:
        """Draw networks from the population as it is, then let those join that may; add what became of them."""
        setup, population, generator = self.setup, self.population, self.generator
        members, budgets = population.members, setup.budgets
        is_small = len(members) <= _SMALL_POPULATION
        mutate = setup.searched.mutate_little if is_small else setup.searched.mutate
        drawn: dict[Any, int] = {}
        for _ in range(number):
            parent = setup.first if is_small else members[int(generator.integers(len(members)))]
            child = mutate(parent.architecture, generator)
            if child in population or child in drawn:
                rows.add(DUPLICATE)
                continue
            if budgets.too_deep(child):
                rows.add(self.history.code("layers"))
                continue
            figures = budgets.figures(child)
            exceeded = budgets.exceeded(figures)
            if exceeded is None:
                drawn[child] = len(rows.outcomes)
            rows.add(JOINED if exceeded is None else self.history.code(exceeded), tuple(figures.values()))
        joining = []
        for (child, row), scores in zip(drawn.items(), setup.scorer.scores(list(drawn)), strict=True):
            if isinstance(scores, str):
                rows.outcomes[row] = NO_SCORE
                continue
            rows.scores[row] = scores
            joining.append(Member(child, self.history.length + row + 1, scores, rows.figures[row]))
        population.add(joining)

    def finish_epoch(self) -> dict[str, float]:
        """The numbers of the population, and the diversity of its networks."""
        with self.progress.timed("search"):
            return {**self.averages(), "diversity": population_diversity(self.population)}

    def conclude(self, show: Show) -> dict[str, Any]:
        """The best member, or for a target latency what refining the best one that can be refined gives.

        Raises Infeasible where no member's widths can be moved so that it meets the target.
        """
        self.best = self.population.best
        if self.settings.target_lat is not None:
            show("refining widths")
            with self.progress.timed("refinement"):
                self.best = self._refined()
        return result_numbers(self.setup, self.best, self.population, self.history)

    def _refined(self) -> Member:
        """A member of the population, or one at other widths, that takes 99.5 to 100 % of the target latency."""
        setup, members = self.setup, self.population.best_first
        found = refine_to_target([member.architecture for member in members], setup.budgets)
        if found == members[0].architecture:
            return members[0]
        scores = setup.scorer.here(found)
        if isinstance(scores, str):
            raise RunFailed(f"the network that meets the target has no score: {scores}")
        figures = tuple(setup.budgets.figures(found).values())
        value = setup.objective.values([*(member.scores for member in members), scores])[-1]
        return Member(found, REFINED, scores, figures, value)

    def write_results(self, run_dir: RunDirectory) -> None:
        """The best network in all forms, the population, the history, and a picture of it."""
        from tfnas.searching.evolution.evolve_picture import evolution_picture  # matplotlib takes a second to load

        best = self.best.architecture
        write_forms(best, run_dir.path / RUN_FILE, run_dir.path / (original_file(best) or ""))
        names = self.setup.figure_names
        run_dir.write_json(POPULATION_FILE, population_document(self.population, names))
        write_whole(run_dir.path / HISTORY_FILE, self.history.to_file())
        picture = evolution_picture(self.history, self.population, self.setup.budgets.limits)
        write_whole(run_dir.path / PICTURE_FILE, picture)

    # ---- what is saved ----------------------------------------------------------------------------------------

    def effective_config(self) -> EvolveConfig:
        """The configuration with absolute paths."""
        return with_absolute_paths(self.settings, PATHS)

    def state(self) -> State:
        """Population, history and generator."""
        members = self.population.members
        return {
            "generator": json.dumps(self.generator.bit_generator.state),
            BEST: self.population.best.architecture.to_text(),
            "start": self.setup.first.architecture.to_text(),
            "architectures": [member.architecture.to_text() for member in members],
            "found": [member.found for member in members],
            "scores": [list(member.scores) for member in members],
            "figures": [list(member.figures) for member in members],
            "space": self.setup.searched.fingerprint,
            "images": self.setup.data and self.setup.data.fingerprint,
            "table": self.setup.table and self.setup.table.fingerprint,
            **self.history.state(),
        }

    def compared(self, state: State) -> Iterable[tuple[str, object, object]]:
        """What files hold: the network to start from, the space, images and the latency table."""
        setup = self.setup
        yield "network to start from", state["start"], setup.first.architecture.to_text()
        yield "search space", state["space"], setup.searched.fingerprint
        yield "data", state["images"], setup.data and setup.data.fingerprint
        yield "latency table", state["table"], setup.table and setup.table.fingerprint

    def restore(self, state: State) -> None:
        """Restore `state`."""
        columns = (state[name] for name in ("architectures", "found", "scores", "figures"))
        self.population = Population(self.settings.population, self.setup.objective)
        self.population.add(
            [
                Member(parse_architecture(text), found, tuple(scores), tuple(figures))
                for text, found, scores, figures in zip(*columns, strict=True)
            ]
        )
        self.history.restore(state)
        self.generator.bit_generator.state = json.loads(state["generator"])

    # ---- what a person sees -----------------------------------------------------------------------------------

    def description(self) -> list[str]:
        """What is searched, by which score, within which budgets, and where."""
        return description(self.setup)

    def work(self) -> tuple[float, float | None]:
        """Iterations."""
        return self.history.length, self.settings.iterations

    def averages(self) -> dict[str, float]:
        """Best and median value, and the shares of the epoch's iterations by their outcome, in percent."""
        shown, totals = self.setup.objective.shown, self.progress.totals
        drawn = max(1, sum(totals.values()))
        shares = {name: 100 * totals.get(name, 0.0) / drawn for name in self.history.outcomes}
        return {"best": shown(self.population.best.value), "median": shown(self.population.median), **shares}

    def step_text(self, averages: Mapping[str, float]) -> str:
        """Best, median, diversity and what was rejected."""
        return progress_text(averages)

    def epoch_warnings(self) -> list[str]:
        """Networks without a score, which say little if they are many."""
        problem = self.setup.scorer.first_problem
        return [] if problem is None else [f"networks without a finite score do not join; the first: {problem:.300}"]

    def add_histograms(self, writer: SummaryWriter, step: int) -> None:
        """The values of the population."""
        values = [self.setup.objective.shown(member.value) for member in self.population.members]
        writer.add_histogram("population", np.array(values), step)

    def show_results(self, run_dir: RunDirectory, summary: Mapping[str, Any]) -> None:
        """What was found."""
        show_results(run_dir, self.best.architecture, summary)
