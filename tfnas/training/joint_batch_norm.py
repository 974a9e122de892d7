"""Batch statistics over all processes on CPUs, where torch's SyncBatchNorm does not work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


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
    """The network with every BatchNorm2d replaced by one over all processes; names and values of its state stay."""
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for name, module in list(network.named_modules()):
        if type(module) is nn.BatchNorm2d:
            joint = JointBatchNorm2d(module.num_features, module.eps, module.momentum)
            joint.load_state_dict(module.state_dict())
            network.set_submodule(name, joint.to(module.weight.device, module.weight.dtype))
    return network
