"""One step of retraining: forward, backward and update on this process's share of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from tfnas.core.errors import RunFailed
from tfnas.runs.distributed import DistributedContext
from tfnas.training.joint_batch_norm import with_joint_statistics
from tfnas.training.precision import ApexPrecision, Precision, TorchPrecision, find_apex, with_half_weights
from tfnas.training.teacher import Teacher, distillation_loss
from tfnas.training.train_config import Recipe, TrainConfig

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class StepReport(NamedTuple):
    """Of a step, over all processes: the mean loss, how many images were right, and whether one asks to stop."""

    loss: float
    correct: float
    stop: bool


@dataclass
class Learner:
    """A network (`network` holds the weights, `runner` computes) with all that trains it."""

    network: nn.Module
    runner: nn.Module
    optimizer: torch.optim.SGD
    precision: Precision
    average: AveragedModel | None
    mix: Mix | None
    teacher: Teacher | None
    recipe: Recipe
    config: TrainConfig
    processes: DistributedContext

    @property
    def judged(self) -> nn.Module:
        """The network to judge and to keep: the averaged one where weights are averaged."""
        if self.average is None:
            return self.network
        averaged: nn.Module = self.average.module
        return averaged

    def place(self, images: Tensor) -> Tensor:
        """Put images where the network is, in the layout it computes in."""
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        dtype = next(self.network.parameters()).dtype
        return images.to(self.processes.device, dtype, non_blocking=True, memory_format=layout)

    def state(self) -> dict[str, Any]:
        """Everything that decides how training goes on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.restore(state["precision"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def make_learner(
    network: nn.Module, teacher: Teacher | None, recipe: Recipe, config: TrainConfig, processes: DistributedContext
) -> Learner:
    """Put the network on its device and wrap it for training. Raises InputError where apex is asked for and missing."""
    device = processes.device
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    if config.sync_bn and processes.world_size > 1:
        network = with_joint_statistics(network, device)
    if config.opt_level == "O3" and config.amp_backend == "torch":
        network = with_half_weights(network, device, keep_batch_norm=bool(config.keep_batchnorm_fp32))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    runner, precision = network, None
    if config.amp_backend == "apex":
        amp = find_apex(device)
        scale = config.static_loss_scale or config.loss_scale
        runner, optimizer = amp.initialize(
            network,
            optimizer,
            opt_level=config.opt_level,
            keep_batchnorm_fp32=config.keep_batchnorm_fp32,
            loss_scale=scale,
        )
        precision = ApexPrecision(amp, optimizer)
    if config.compile:
        runner = torch.compile(runner)  # type: ignore[assignment]
    if processes.world_size > 1:
        runner = DistributedDataParallel(runner, device_ids=[device] if device.type == "cuda" else None)
    average = None
    if config.ema_decay:
        averaging = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        average = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
    return Learner(
        network=network,
        runner=runner,
        optimizer=optimizer,
        precision=precision or TorchPrecision(config.opt_level, device, optimizer, config.static_loss_scale),
        average=average,
        mix=_mix(config, _num_classes(network)),
        teacher=None if teacher is None else teacher.to(device),
        recipe=recipe,
        config=config,
        processes=processes,
    )


def train_step(learner: Learner, images: Tensor, labels: Tensor, stop_asked: bool) -> StepReport:
    """A step on this process's share of a batch: images float32 (N, 3, S, S), labels int64 (N,), where they compute.

    Raises RunFailed before the update when the loss of any process is not finite. The last piece's backward pass sends
    the gradients of all pieces.
    """
    pieces, count = learner.config.accumulate, len(labels)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.runner.train()
    sums = torch.zeros(2, device=images.device, dtype=torch.float64)  # of the loss, and of images that are right
    parts = list(zip(images.chunk(pieces), labels.chunk(pieces), strict=True))
    for number, (some_images, some_labels) in enumerate(parts, 1):
        together = number == len(parts) or not isinstance(learner.runner, DistributedDataParallel)
        with nullcontext() if together else _without_exchange(learner.runner):
            part_loss, part_correct = _forward(learner, some_images, some_labels)
            learner.precision.backward(part_loss * (len(some_labels) / count))
        sums += torch.stack([part_loss.detach() * (len(some_labels) / count), part_correct])
    total, right, stop = learner.processes.all_reduce_sum([*sums.tolist(), float(stop_asked)])
    report = StepReport(total / learner.processes.world_size, right, stop > 0)
    if not math.isfinite(report.loss):
        raise RunFailed(f"the loss is {report.loss}, and no weight was changed by it: lower --lr")
    learner.precision.update(list(learner.network.parameters()), learner.recipe.grad_clip)
    if learner.average is not None:
        learner.average.update_parameters(learner.network)
    return report


def _without_exchange(runner: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay in this process until a later backward pass sends their sum."""
    assert isinstance(runner, DistributedDataParallel)
    return runner.no_sync()


def _forward(learner: Learner, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (a mean), and how many images are right."""
    goals = labels
    if learner.mix is not None:
        images, goals = learner.mix(images, labels)
    with learner.precision.forward():
        logits = learner.runner(images)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = functional.cross_entropy(logits, goals, label_smoothing=learner.recipe.label_smooth)
    if learner.teacher is not None:
        weight, heat = learner.config.distill_weight, learner.config.distill_temperature
        loss = (1 - weight) * loss + weight * distillation_loss(logits, learner.teacher(images), heat)
    return loss, (logits.argmax(1) == labels).sum()


def _mix(config: TrainConfig, num_classes: int) -> Mix | None:
    """MixUp, CutMix, one of the two by chance, or neither."""
    kinds = ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
    chosen = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0]
    if not chosen:
        return None
    mix: Mix = chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
    return mix


def _num_classes(network: nn.Module) -> int:
    """Those of the last linear layer: that is every family's classifier."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1].out_features
