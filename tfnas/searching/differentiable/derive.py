"""From what has been learned to an architecture: deriving, elasticity scaling of width, evaluating a derived path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.widths import fit_widths
from tfnas.nn.classification_metrics import evaluate_batches
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.search_run import choice_from
from tfnas.searching.differentiable.architecture_parameters import operations_ms
from tfnas.searching.differentiable.search_steps import Learner
from tfnas.supernet.extract import route_of
from tfnas.supernet.routes import Path, one_hot_depths
from tfnas.supernet.supernet import Supernet


def choice_of(learner: Learner) -> Choice:
    """What has been learned so far, for deriving and for meeting the target."""
    supernet = learner.supernet
    num_classes = supernet.classifier.linear.out_features
    return choice_from(supernet.space, num_classes, learner.parameters.state_dict(), supernet.widths())


def scale_widths(learner: Learner, table: LatencyTable, target_ms: float) -> float:
    """Elasticity scaling: fit the derived architecture's widths and make them the supernet's.

    Returns the derived architecture's table latency in ms after the fit. Momentum of all channels is kept.
    """
    choice = choice_of(learner)
    fitted = fit_widths(choice.derived(), table, target_ms)
    learner.supernet.set_widths(choice.best_operations, fitted)
    look_up(learner, table)
    return table.architecture_ms(fitted)


def look_up(learner: Learner, table: LatencyTable) -> None:
    """Bring the learner's table latencies up to the supernet's current widths."""
    found = operations_ms(learner.supernet.space, table, learner.supernet.widths())
    learner.table_ms = found.to(learner.parameters.log_alphas)


def derived_accuracy(
    supernet: Supernet,
    architecture: Architecture,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    processes: DistributedContext | None = None,
) -> float:
    """Top-1 in percent of an architecture's path with inherited weights: its widths, one-hot depth, batch statistics.

    The supernet is not changed. Of several processes each has batches of its own.
    """
    with at_widths_of(supernet, architecture) as (path, depth_weights):
        return accuracy(supernet, path, depth_weights, batches, device, processes)


@contextmanager
def at_widths_of(supernet: Supernet, architecture: Architecture) -> Iterator[tuple[Path, list[Tensor]]]:
    """Give the supernet an architecture's widths; afterwards every operation has its own active channels again.

    Gives the path and the one-hot depth weights that make the supernet this architecture. Raises InputError where it is
    none of the supernet's space.
    """
    operations, depths = route_of(supernet, architecture)
    depth_weights = [weights.to(supernet.device) for weights in one_hot_depths(supernet.space.depth_choices, depths)]
    taken = [supernet.block_operations(number)[operation] for number, operation in enumerate(operations)]
    before = [operation.active for operation in taken]
    try:
        supernet.set_widths(operations, architecture)
        yield Path(operations, depths), depth_weights
    finally:
        for operation, active in zip(taken, before, strict=True):
            operation.set_active(active)


def accuracy(
    supernet: Supernet,
    path: Path,
    depth_weights: Sequence[Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    processes: DistributedContext | None = None,
) -> float:
    """Top-1 in percent of one path, over the batches of all processes."""

    def logits(images: Tensor) -> Tensor:
        found: Tensor = supernet(images.to(memory_format=torch.channels_last), path, depth_weights)
        return found

    all_reduce = list if processes is None else processes.all_reduce_sum
    return evaluate_batches(logits, batches, device, all_reduce=all_reduce).top1
