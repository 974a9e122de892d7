"""One step of retraining: forward, backward and update on this process's share of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from tfnas.core.errors import RunFailed
from tfnas.runs.distributed import DistributedContext
from tfnas.training.precision import ApexPrecision, Precision, TorchPrecision, find_apex, with_half_weights
from tfnas.training.teacher import Teacher, distillation_loss
from tfnas.training.train_config import Recipe, TrainConfig

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


STEP_STREAM = 2
"""Of a run's seed, beside those of order and augmentation: what steps draw from."""


class StepReport(NamedTuple):
    """Of a step, over all processes: the mean loss, and how many images were right."""

    loss: float
    correct: float


@dataclass
class NetworkLearner:
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
    def result(self) -> nn.Module:
        """The network to evaluate and to keep: the averaged one where weights are averaged."""
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
        """What a checkpoint stores of it."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.restore(state["precision"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def make_learner(
    network: nn.Module, teacher: Teacher | None, recipe: Recipe, config: TrainConfig, processes: DistributedContext
) -> NetworkLearner:
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
    return NetworkLearner(
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


def train_step(learner: NetworkLearner, images: Tensor, labels: Tensor) -> StepReport:
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
    total, right = learner.processes.all_reduce_sum(sums.tolist())
    report = StepReport(total / learner.processes.world_size, right)
    if not math.isfinite(report.loss):
        raise RunFailed(f"the loss is {report.loss}, and no weights were updated: lower --lr")
    learner.precision.update(list(learner.network.parameters()), learner.recipe.grad_clip)
    if learner.average is not None:
        learner.average.update_parameters(learner.network)
    return report


def _without_exchange(runner: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay in this process until a later backward pass sends their sum."""
    assert isinstance(runner, DistributedDataParallel)
    return runner.no_sync()


def _forward(learner: NetworkLearner, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
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


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; the gradient of every process's summand is the sum of all gradients."""

    @staticmethod
    def forward(_context: Any, summand: Tensor) -> Tensor:
        """Sum."""
        total = summand.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        """Sum the gradients."""
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class JointBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that in training takes mean and variance over the batches of all processes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """(N, C, H, W) to the same shape; N may differ between processes."""
        if not self.training:
            return super().forward(input)
        features = input.to(self.weight.dtype)  # autocast may have made it half, which is too coarse for sums
        own = features.new_full((1,), features.numel() / self.num_features)
        sums = _sum_over_processes(torch.cat([features.sum((0, 2, 3)), own]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1]
        centred = features - mean[:, None, None]
        variance = _sum_over_processes(centred.square().sum((0, 2, 3))) / count
        self._note(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of the batch, as BatchNorm2d does."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _sum_over_processes(summand: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(summand)
    return total


def with_joint_statistics(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with every BatchNorm2d replaced by one over all processes; names and values of its state stay.

    On GPUs that is torch's SyncBatchNorm, which refuses tensors of a CPU as soon as a process group exists.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for name, module in list(network.named_modules()):
        if type(module) is nn.BatchNorm2d:
            joint = JointBatchNorm2d(module.num_features, module.eps, module.momentum)
            joint.load_state_dict(module.state_dict())
            network.set_submodule(name, joint.to(module.weight.device, module.weight.dtype))
    return network
