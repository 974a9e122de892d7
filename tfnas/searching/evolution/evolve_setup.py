"""An evolutionary search opened: family, network to start from, budgets and objective, all checked."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfnas.core.errors import InputError
from tfnas.core.family import Family
from tfnas.core.space import SearchSpace
from tfnas.proxies.score_options import ScoreOptions
from tfnas.runs.architecture_source import arch_source, path_source
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.worker_pool import WorkerPool
from tfnas.searching.evolution.budgets import Budgets
from tfnas.searching.evolution.candidate_scoring import CandidateScorer
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.searching.evolution.objective import Objective
from tfnas.searching.evolution.population import Member
from tfnas.spaces.families import families, find_family
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.zen.zen_family import ZenFamily
from tfnas.utils.devices import usable_cores

_MOST_CLASSES_OF_A_SPACE = 1000


@dataclass(frozen=True)
class EvolveSetup:
    """What a search is made of. `first` is the network that it starts from, scored."""

    config: EvolveConfig
    processes: DistributedContext
    family: Family
    budgets: Budgets
    scorer: CandidateScorer
    first: Member
    figure_names: tuple[str, ...]

    @property
    def objective(self) -> Objective:
        """What is maximised."""
        return self.scorer.objective


def prepare(config: EvolveConfig, processes: DistributedContext) -> EvolveSetup:
    """Open and check everything. Raises InputError, and Infeasible for budgets that cannot be met."""
    if processes.world_size > 1:
        raise InputError("an evolutionary search is one process with workers: start it without torchrun, with --jobs")
    family, initial = _family_and_initial(config)
    objective = Objective.parse(config.score, config.combine == "rank")
    budgets = Budgets(config)
    budgets.check_start(initial)
    _check_of_space(family, initial, config)
    options = _score_options(config, str(processes.device))
    jobs = config.jobs or (1 if processes.device.type == "cuda" else min(usable_cores(), config.children))
    scorer = CandidateScorer(objective, options, WorkerPool(config.joblib_backend, jobs, config.cluster))
    figures = budgets.figures(initial)
    first = Member(initial, 0, _first_scores(scorer, initial), tuple(figures.values()))
    return EvolveSetup(config, processes, family, budgets, scorer, first, tuple(figures))


def _score_options(config: EvolveConfig, device: str) -> ScoreOptions:
    return ScoreOptions(
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        repeats=config.repeats,
        stage_weights=config.weights_of_stages,
        depth_penalty=config.depth_penalty,
    )


def _family_and_initial(config: EvolveConfig) -> tuple[Family, Any]:
    """The family that networks are drawn from, and the network to start from, for the images and classes wanted."""
    rng = np.random.default_rng(config.seed)
    if config.space == "zen":
        family: Family = ZenFamily()
        initial = ZenFamily().initial
    elif config.space != "mbconv" and config.space in families():
        family = find_family(config.space)
        initial = family.sample(rng)
    else:
        space = load_space(config.space)
        if config.image_size is not None:
            space = dataclasses.replace(space, image_size=config.image_size)
        mbconv = MBConvFamily(space, config.num_classes or _MOST_CLASSES_OF_A_SPACE)
        family, initial = mbconv, _smallest(space, mbconv.num_classes)
    if config.init is not None:
        initial = _named(config.init)
    size, classes = config.image_size or initial.image_size, config.num_classes or initial.num_classes
    return family, initial.adapted(image_size=size, num_classes=classes)


def _named(given: str) -> Any:
    """The network of --init. Raises InputError that begins with the flag."""
    try:
        found = path_source(given) if os.path.exists(given) else arch_source(given)  # noqa: PTH110 - may be a long text
    except InputError as error:
        message = str(error)
        raise InputError(f"--init: {message.removeprefix('--arch: ')}") from error
    return found.architecture


def _smallest(space: SearchSpace, num_classes: int) -> Any:
    """The narrowest network of a space: the fewest blocks, of the operation with the least width and kernel."""
    operations, widths = [], []
    for place in space.blocks:
        index = min(
            range(len(space.operations)),
            key=lambda number: (
                space.width_range(place, space.operations[number])[0],
                space.operations[number].kernel_size,
                space.operations[number].se,
            ),
        )
        operations.append(index)
        widths.append(space.width_range(place, space.operations[index])[0])
    return space.architecture(operations, [min(choices) for choices in space.depth_choices], widths, num_classes)


def _check_of_space(family: Family, initial: Any, config: EvolveConfig) -> None:
    """Raise InputError where the family does not mutate the network to start from."""
    if initial.family != family.name:
        raise InputError(
            f"--init names a network of family {initial.family}, but --space {config.space} is of family {family.name}"
        )
    try:
        family.mutate(initial, np.random.default_rng(config.seed))
    except InputError as error:
        raise InputError(f"--init does not lie in --space {config.space}: {error}") from error


def _first_scores(scorer: CandidateScorer, initial: Any) -> tuple[float, ...]:
    """The scores of the network to start from, computed here. Raises InputError where it has none."""
    found = scorer.here(initial)
    if isinstance(found, str):
        raise InputError(f"--score: the network to start from has none: {found}")
    return found
