"""The two steps of the search (TF-NAS, algorithm 1): one trains the weights, the other the architecture parameters.

Both stop before the update when the loss or a gradient is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.errors import RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.differentiable.architecture_parameters import (
    ArchitectureParameters,
    expected_ms,
    sample_mixture_weights,
)
from tfnas.searching.differentiable.optimizers import Adam, ElasticSGD
from tfnas.searching.differentiable.schedule import Schedule
from tfnas.supernet.losses import path_losses
from tfnas.supernet.routes import Mixture, Path
from tfnas.supernet.supernet import Supernet
from tfnas.utils.torch_settings import give_back_freed_memory


class WeightStep(NamedTuple):
    """Of a weight step: the loss (mean over its paths), how many images each got right, averaged, and of how many."""

    loss: float
    correct: float
    images: int


class ArchitectureStep(NamedTuple):
    """Of an architecture step: cross entropy, latency term (before lambda), expected latency in the table's unit."""

    cross_entropy: float
    latency_loss: float
    expected_ms: float


@dataclass
class Learner:
    """Supernet and architecture parameters with their optimizers, and the latencies they are trained against."""

    supernet: Supernet
    parameters: ArchitectureParameters
    weight_optimizer: ElasticSGD
    architecture_optimizer: Adam
    schedule: Schedule
    target_ms: float
    base_ms: float
    table_ms: Tensor
    processes: DistributedContext | None = None
    """With which others it learns, each on its share of every batch; None: alone."""
    amp: bool = False
    """Whether forward passes compute in mixed precision (bfloat16, which needs no scaling of the loss)."""

    @property
    def weights(self) -> list[Tensor]:
        """All that a weight step may change, in the supernet's order; going through its modules takes longer."""
        params: list[Tensor] = self.weight_optimizer.param_groups[0]["params"]
        return params

    def autocast(self) -> AbstractContextManager[Any]:
        """For forward passes."""
        return torch.autocast(self.supernet.device.type, torch.bfloat16) if self.amp else nullcontext()

    def end_step(self) -> None:
        """Where memory is low, let others and the next step, which asks for pieces of other sizes, have it."""
        if self.supernet.low_memory and self.supernet.device.type == "cpu":
            give_back_freed_memory()


def make_learner(
    supernet: Supernet, parameters: ArchitectureParameters, schedule: Schedule, table: LatencyTable, target_ms: float
) -> Learner:
    """Optimizers with the schedule's settings; the caller sets `table_ms` whenever widths change."""
    weights = list(supernet.parameters())
    check_partition(weights, list(parameters.parameters()), nn.ModuleList([supernet, parameters]))
    sgd = ElasticSGD(
        weights,
        partial(supernet.active_slices, with_grad=True),
        lr=schedule.w_lr,
        momentum=schedule.w_mom,
        weight_decay=schedule.w_wd,
    )
    adam = Adam(
        parameters.parameters(),
        lr=schedule.a_lr,
        betas=(schedule.a_beta1, schedule.a_beta2),
        weight_decay=schedule.a_wd,
    )
    empty, num_classes = torch.empty(0), supernet.classifier.linear.out_features
    return Learner(supernet, parameters, sgd, adam, schedule, target_ms, table.base_ms(num_classes), empty)


def check_partition(weights: Sequence[Tensor], architecture: Sequence[Tensor], model: nn.Module) -> None:
    """Assert that every parameter of the model is in exactly one of the two lists."""
    listed = [id(parameter) for parameter in (*weights, *architecture)]
    assert len(set(listed)) == len(listed), "a parameter is both a weight and an architecture parameter"
    assert set(listed) == {id(parameter) for parameter in model.parameters()}, "a parameter belongs to no optimizer"


def weight_step(learner: Learner, images: Tensor, labels: Tensor, paths: Sequence[Path]) -> WeightStep:
    """Add the losses of the paths, one backward pass, clip, one SGD step on the weights.

    Raises RunFailed before the update when the loss or a gradient is not finite.
    """
    loss, correct = weight_loss(learner, images, labels, paths)
    loss.backward()  # type: ignore[no-untyped-call]
    images_of_all = len(labels)
    if learner.processes is not None:
        gradients = [weight.grad for weight in learner.weights if weight.grad is not None]
        total, sum_of_all, number = learner.processes.all_reduce_mean(
            gradients, len(labels), [loss * len(labels), correct]
        )
        loss, correct = loss.new_tensor(total / number), loss.new_tensor(sum_of_all)
        images_of_all = round(number)
    loss_of_all, correct_of_all = _clip(learner.weights, learner.schedule.grad_clip, [loss, correct], "weight")
    learner.weight_optimizer.step()
    learner.weight_optimizer.zero_grad(set_to_none=True)  # an architecture step can have the room
    learner.end_step()
    return WeightStep(loss_of_all / len(paths), correct_of_all, images_of_all)


def weight_loss(learner: Learner, images: Tensor, labels: Tensor, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """The sum of the paths' cross entropies, and the number of images got right, averaged over the paths (scalars)."""
    depth_weights = [weights.detach() for weights in learner.parameters.depth_weights()]
    supernet = learner.supernet
    with learner.autocast():
        features = supernet.stem(images)
    hits: list[Tensor] = []

    def loss_of(path: Path, features: Tensor) -> Tensor:
        with learner.autocast():
            logits = supernet.along(path, features, depth_weights)
        hits.append((logits.detach().argmax(1) == labels).sum())
        return functional.cross_entropy(logits.float() if learner.amp else logits, labels)

    functions = [partial(loss_of, path) for path in paths]
    losses = path_losses(functions, features, learner.weights, supernet.low_memory)
    return torch.stack(losses).sum(), torch.stack(hits).sum() / len(paths)


def architecture_step(
    learner: Learner, images: Tensor, labels: Tensor, temperature: float, generator: torch.Generator
) -> ArchitectureStep:
    """One Adam step of the architecture parameters on cross entropy + lambda * |expected latency / target - 1|.

    Raises RunFailed before the update when the loss or a gradient is not finite.
    """
    parameters = list(learner.parameters.parameters())
    loss, parts = architecture_loss(learner, images, labels, temperature, generator)
    with learner.supernet.mixture_context():
        gradients = torch.autograd.grad(loss, parameters)  # of these only: no weight gradient is computed
    if learner.processes is not None:
        count = len(labels)
        *totals, number = learner.processes.all_reduce_mean(
            gradients, count, [count * value for value in (loss, *parts)]
        )
        loss, *parts = (loss.new_tensor(total / number) for total in totals)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    _, *values = _clip(parameters, learner.schedule.grad_clip, [loss, *parts], "architecture")
    learner.architecture_optimizer.step()
    learner.parameters.renormalize()
    learner.end_step()
    return ArchitectureStep(*values)


def architecture_loss(
    learner: Learner, images: Tensor, labels: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """The loss of an architecture step, and its parts in the order of `ArchitectureStep` (scalars).

    One Gumbel-softmax sample weighs outputs and latencies alike.
    """
    weights = sample_mixture_weights(learner.parameters.log_alphas, temperature, generator)
    depth_weights = learner.parameters.depth_weights()
    with learner.autocast():
        with torch.no_grad():  # the stems precede all choices
            features = learner.supernet.stem(images)
        with learner.supernet.mixture_context():
            logits = learner.supernet.along(Mixture(weights), features, depth_weights)
    logits = logits.float() if learner.amp else logits
    cross_entropy = functional.cross_entropy(logits, labels)
    space, table_ms = learner.supernet.space, learner.table_ms.to(weights)
    expected = expected_ms(space, table_ms, learner.base_ms, weights, depth_weights)
    latency_loss = (expected / learner.target_ms - 1).abs()
    loss = cross_entropy + learner.schedule.lambda_lat * latency_loss
    return loss, [cross_entropy.detach(), latency_loss.detach(), expected.detach()]


def _clip(parameters: Iterable[Tensor], limit: float, scalars: Sequence[Tensor], what: str) -> list[float]:
    """Clip the norm of all gradients; returns the scalars, of which the loss is the first, as numbers.

    They are asked for here and together: a device that computes by itself is waited for once in a step of one process.
    """
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    norm_of_all, *values = torch.stack([norm, *(scalar.detach().to(norm) for scalar in scalars)]).tolist()
    if not math.isfinite(values[0] + norm_of_all):
        learning_rate = {"weight": "--w_lr", "architecture": "--a_lr"}[what]
        raise RunFailed(
            f"the {what} step gave loss {values[0]:g} with gradient norm {norm_of_all:g}; nothing was updated. "
            f"The usual cause is a learning rate that is too high: lower {learning_rate}"
        )
    found: list[float] = values
    return found
