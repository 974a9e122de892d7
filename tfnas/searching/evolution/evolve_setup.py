"""An evolutionary search opened: family, network to start from, budgets and objective, all checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfnas.core.errors import InputError
from tfnas.core.family import Family
from tfnas.data.opened_data import ImageData, open_data
from tfnas.latency.default_table import open_table
from tfnas.latency.structure_table import AnyTable, load_table
from tfnas.proxies.score_options import ScoreOptions
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.worker_pool import WorkerPool
from tfnas.searching.evolution.budgets import Budgets
from tfnas.searching.evolution.candidate_scoring import CandidateScorer
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.searching.evolution.evolve_family import SearchedFamily, frames_of, open_family
from tfnas.searching.evolution.objective import Objective
from tfnas.searching.evolution.population import Member
from tfnas.searching.evolution.start_check import check_start
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.mbconv.space_file import space_arguments
from tfnas.utils.devices import usable_cores


@dataclass(frozen=True)
class EvolveSetup:
    """What a search is made of. `first` is the network that it starts from, scored."""

    config: EvolveConfig
    processes: DistributedContext
    searched: SearchedFamily
    budgets: Budgets
    scorer: CandidateScorer
    first: Member
    figure_names: tuple[str, ...]
    table: AnyTable | None = None
    lookup_path: str | None = None
    data: ImageData | None = None

    @property
    def objective(self) -> Objective:
        """What is maximised."""
        return self.scorer.objective


def prepare(config: EvolveConfig, processes: DistributedContext) -> EvolveSetup:
    """Open and check everything. Raises InputError, and Infeasible for budgets that cannot be met."""
    if processes.world_size > 1:
        raise InputError("an evolutionary search is one process with workers: start it without torchrun, with --jobs")
    objective = Objective.parse(config.score, config.combine == "rank")
    searched = open_family(config)
    data = _open_data(config, searched)
    if data is not None and data.num_classes != searched.initial.num_classes:
        config = dataclasses.replace(config, num_classes=data.num_classes)
        searched = open_family(config)
    initial = searched.initial
    table, lookup_path = _open_table(config, searched.family)
    budgets = Budgets(config, table)
    check_start(budgets, searched.family, initial)
    options = _score_options(config, str(processes.device), frames_of(initial))
    jobs = config.jobs or (1 if processes.device.type == "cuda" else min(usable_cores(), config.children))
    scorer = CandidateScorer(
        objective, options, WorkerPool(config.joblib_backend, jobs, config.cluster), config.image_data
    )
    figures = budgets.figures(initial)
    first = Member(initial, 0, _first_scores(scorer, initial), tuple(figures.values()))
    return EvolveSetup(config, processes, searched, budgets, scorer, first, tuple(figures), table, lookup_path, data)


def _score_options(config: EvolveConfig, device: str, frames: int) -> ScoreOptions:
    factors: dict[str, Any] = config.score_factors
    return ScoreOptions(
        frames=frames,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        repeats=config.repeats,
        depth_penalty=config.depth_penalty,
        **factors,
    )


def _open_data(config: EvolveConfig, searched: SearchedFamily) -> ImageData | None:
    """The images, where some are named."""
    if config.image_data is None:
        return None
    return open_data(config.image_data, image_size=searched.initial.image_size, seed=config.seed)


def _open_table(config: EvolveConfig, family: Family) -> tuple[AnyTable | None, str | None]:
    """The latency table and its path, where latency has a budget."""
    if config.target_lat is None and config.max_ms is None:
        return None, None
    if isinstance(family, MBConvFamily):
        return open_table(config.lookup_path, family.space, space_arguments(family.space, config.space))
    if config.lookup_path is None:
        raise InputError(
            f"--target_lat and --max_ms need a latency table of --space {config.space}: give it with --lookup_path FILE"
        )
    return load_table(config.lookup_path), config.lookup_path


def _first_scores(scorer: CandidateScorer, initial: Any) -> tuple[float, ...]:
    """The scores of the network to start from, computed here. Raises InputError where it has none."""
    found = scorer.here(initial)
    if isinstance(found, str):
        raise InputError(f"--score: the network to start from has none: {found}")
    return found
