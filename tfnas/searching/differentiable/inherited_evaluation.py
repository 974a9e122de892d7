"""Networks evaluated with the weights of the supernet, and the quality of the supernet, measured after every epoch.

For the latter *sanity networks* are drawn once, operations and depths uniformly, and fitted to the target, so that they
are what the search chooses among. Their mean loss on held-out images is the trajectory of the supernet. Once the
architecture is trained, Kendall's tau says whether the architecture parameters prefer those that the shared weights
serve well. It is agreement within the search: no evidence about accuracies after a training of their own. Of eight
networks there are 28 pairs only, so its interval is wide.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import meet_target
from tfnas.nn.classification_metrics import Batches, ClassificationMetrics, evaluate_batches, evaluate_networks
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.differentiable.search_setup import SearchSetup
from tfnas.supernet.supernet import Path, Supernet, one_hot_depths, operations_and_depths

NUM_SANITY_NETWORKS = 8
_MOST_DRAWS = 4 * NUM_SANITY_NETWORKS
_STREAM = 2  # of the run's seed; what the search itself draws is not touched
_FEWEST_FOR_INTERVAL = 5


@dataclass(frozen=True)
class SanityNetworks:
    """The networks evaluated after every epoch, and the time taken to sample them."""

    networks: tuple[Architecture, ...]
    seconds: float


def evaluate_inherited(
    supernet: Supernet,
    networks: Sequence[Architecture],
    batches: Batches,
    processes: DistributedContext,
) -> list[ClassificationMetrics]:
    """Evaluate networks with inherited weights: their widths, one-hot depth, batch statistics. Changes nothing.

    Of several processes each has batches of its own; all get the same answer.
    """

    def logits(images: Tensor) -> Iterator[Tensor]:
        features = supernet.stem(images.to(memory_format=torch.channels_last))  # precedes all that they differ in
        for network in networks:
            with temporary_widths(supernet, network) as (path, depth_weights):
                yield supernet.along(path, features, depth_weights)

    return evaluate_networks(logits, len(networks), batches, processes.device, all_reduce=processes.all_reduce_sum)


def derived_accuracy(
    supernet: Supernet,
    architecture: Architecture,
    batches: Batches,
    device: torch.device,
    processes: DistributedContext | None = None,
) -> float:
    """Top-1 in percent of an architecture's path with inherited weights: its widths, one-hot depth, batch statistics.

    The supernet is not changed. Of several processes each has batches of its own.
    """
    with temporary_widths(supernet, architecture) as (path, depth_weights):
        return path_accuracy(supernet, path, depth_weights, batches, device, processes)


@contextmanager
def temporary_widths(supernet: Supernet, architecture: Architecture) -> Iterator[tuple[Path, list[Tensor]]]:
    """Give the supernet an architecture's widths; afterwards every operation has its own active channels again.

    Gives the path and the one-hot depth weights that make the supernet this architecture. Raises InputError where it is
    none of the supernet's space.
    """
    operations, depths = operations_and_depths(supernet.space, architecture)
    depth_weights = [weights.to(supernet.device) for weights in one_hot_depths(supernet.space.depth_choices, depths)]
    taken = [supernet.block_operations(number)[operation] for number, operation in enumerate(operations)]
    before = [operation.active for operation in taken]
    try:
        supernet.set_widths(operations, architecture)
        yield Path(operations, depths), depth_weights
    finally:
        for operation, active in zip(taken, before, strict=True):
            operation.set_active(active)


def path_accuracy(
    supernet: Supernet,
    path: Path,
    depth_weights: Sequence[Tensor],
    batches: Batches,
    device: torch.device,
    processes: DistributedContext | None = None,
) -> float:
    """Top-1 in percent of one path, over the batches of all processes."""

    def logits(images: Tensor) -> Tensor:
        found: Tensor = supernet(images.to(memory_format=torch.channels_last), path, depth_weights)
        return found

    all_reduce = list if processes is None else processes.all_reduce_sum
    return evaluate_batches(logits, batches, device, all_reduce=all_reduce).top1


def uniform_choice(space: SearchSpace, num_classes: int) -> Choice:
    """All operations and depths alike, at the widths that a search starts from."""
    widths = [[space.initial_width(place, operation) for operation in space.operations] for place in space.blocks]
    return Choice(
        space=space,
        num_classes=num_classes,
        log_alphas=np.zeros((len(space.blocks), len(space.operations))),
        log_depths=tuple(np.zeros(len(choices)) for choices in space.depth_choices),
        widths=np.array(widths, dtype=np.int64),
    )


def random_choice(uniform: Choice, generator: np.random.Generator) -> Choice:
    """The choice with operations and depths in a random order of preference."""
    return dataclasses.replace(
        uniform,
        log_alphas=generator.gumbel(size=uniform.log_alphas.shape),
        log_depths=tuple(generator.gumbel(size=values.shape) for values in uniform.log_depths),
    )


def random_networks(uniform: Choice, table: LatencyTable, target_ms: float, seed: int) -> tuple[Architecture, ...]:
    """Eight different networks in the band, or as many as 32 draws give; the same seed gives the same ones.

    Raises Infeasible when no architecture of the space is in the band.
    """
    generator = np.random.default_rng([seed, _STREAM])
    found: dict[Architecture, None] = {}
    for _ in range(_MOST_DRAWS):
        found[meet_target(random_choice(uniform, generator), table, target_ms)] = None
        if len(found) == NUM_SANITY_NETWORKS:
            break
    return tuple(found)


def sample_sanity_networks(setup: SearchSetup) -> SanityNetworks:
    """The sanity networks of a search, the same in all processes. Raises Infeasible as `random_networks` does."""
    start = time.perf_counter()

    def sample() -> str:
        choice = uniform_choice(setup.space, setup.data.num_classes)
        networks = random_networks(choice, setup.table, setup.target_ms, setup.config.seed)
        return "\n".join(network.to_text() for network in networks)

    texts = setup.processes.from_rank_zero(sample).splitlines()
    return SanityNetworks(tuple(Architecture.parse(text) for text in texts), time.perf_counter() - start)


def probe_entry(
    supernet: Supernet,
    found: Sequence[ClassificationMetrics],
    networks: Sequence[Architecture],
    choice: Choice | None,
) -> dict[str, float]:
    """An epoch's numbers: means over the networks and, with a trained choice, how far it agrees with their losses."""
    losses = [metrics.loss for metrics in found]
    entry = {"probe_loss": float(np.mean(losses)), "probe_top1": float(np.mean([metrics.top1 for metrics in found]))}
    if choice is not None:
        preferences = [choice.score(*operations_and_depths(supernet.space, network)) for network in networks]
        entry.update(agreement(preferences, losses))
    return entry


def agreement(preferences: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    """How far log-probabilities [n] prefer what has the smaller loss [n], by name; nothing where all of one are equal.

    `probe_tau` is Kendall's tau-b (1: the same order, 0: none, -1: reversed), `probe_tau_low` and `probe_tau_high` are
    its 95 % interval (of five networks or more), and `probe_ordered` is the share of pairs ordered alike: one of equal
    preference counts half, one of equal loss not at all.
    """
    from scipy.stats import kendalltau  # takes a second to import

    from tfnas.utils.statistics import tau_with_interval

    gains = [-loss for loss in losses]
    if len(gains) < 2 or math.isnan(value := float(kendalltau(preferences, gains).statistic)):
        return {}
    found = {"probe_tau": value}
    if len(gains) >= _FEWEST_FOR_INTERVAL:
        tau = tau_with_interval(preferences, gains)
        assert tau is not None
        found.update(probe_tau_low=tau.low, probe_tau_high=tau.high)
    pairs = [
        float(np.sign(preferences[i] - preferences[j]) * np.sign(gains[i] - gains[j]))
        for i in range(len(gains))
        for j in range(i)
        if gains[i] != gains[j]
    ]
    found["probe_ordered"] = float(np.mean([(1 + pair) / 2 for pair in pairs]))
    return found
