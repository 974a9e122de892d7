"""Mixed precision: what `--opt_level` and `--amp_backend` mean.

O0 is float32. O1 computes in float16 with loss scaling on a GPU, in bfloat16 on a CPU; O2 in bfloat16; their weights
stay float32. At O3 weights, gradients and updates are float16 on a GPU, bfloat16 on a CPU, and the loss is not scaled.
NVIDIA apex, where it is installed, gives the levels its own meaning.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tfnas.core.errors import InputError, RunFailed

SMALLEST_SCALE = 2.0**-10  # a gradient that overflows at this scale is not finite at any


class Precision(Protocol):
    """How forward pass, backward pass and update are computed."""

    def forward(self) -> AbstractContextManager[Any]:
        """A context for forward passes."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the loss."""

    def update(self, parameters: list[nn.Parameter], largest_norm: float) -> None:
        """Clip the gradients to a norm, then one step of the optimizer. Raises RunFailed when they are not finite."""

    def state(self) -> dict[str, Any]:
        """What must be saved."""

    def restore(self, state: dict[str, Any]) -> None:
        """Restore `state`."""


def half_dtype(device: torch.device) -> torch.dtype:
    """The half precision of O1 and O3."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def with_half_weights(network: nn.Module, device: torch.device, keep_batch_norm: bool) -> nn.Module:
    """The network with the weights of O3, in place; those of batch norm may stay in float32."""
    network.to(half_dtype(device))
    if keep_batch_norm:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.float()
    return network


def in_single(value: Tensor) -> Tensor:
    """A tensor of half precision in float32, which holds all its values; any other as it is."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


class TorchPrecision:
    """PyTorch's autocast and, for float16, its loss scaling; or a scale of the loss that stays.

    Dynamic scaling does nothing where gradients have the range of float32, as those of bfloat16 have.
    """

    def __init__(
        self, opt_level: str, device: torch.device, optimizer: torch.optim.Optimizer, loss_scale: float | None = None
    ) -> None:
        autocast_to = {"O1": half_dtype(device), "O2": torch.bfloat16}
        self.dtype = autocast_to.get(opt_level)
        self.device, self.optimizer = device, optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16 and loss_scale is None)
        self.scale = 1.0 if loss_scale is None else loss_scale

    def forward(self) -> AbstractContextManager[Any]:
        """Autocast, or nothing for O0 and O3."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Backward on the scaled loss."""
        self.scaler.scale(loss * self.scale).backward()  # type: ignore[no-untyped-call]

    def update(self, parameters: list[nn.Parameter], largest_norm: float) -> None:
        """A step; with loss scaling, one whose gradients overflow is left out and the scale is halved."""
        self.scaler.unscale_(self.optimizer)
        if self.scale != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(self.scale)
        norm = nn.utils.clip_grad_norm_(parameters, largest_norm)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            lower = "--lr" if self.scale == 1 else "--loss_scale or --lr"
            raise RunFailed(f"a gradient is not finite, and no weights were updated: lower {lower}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise RunFailed("gradients overflow at every scale of the loss: lower --lr, or use --opt_level O2 or O0")

    def state(self) -> dict[str, Any]:
        """The scale of the loss."""
        return dict(self.scaler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with that scale."""
        if self.scaler.is_enabled() and state:
            self.scaler.load_state_dict(state)


class ApexPrecision:
    """NVIDIA apex's mixed precision; `amp` is its module."""

    def __init__(self, amp: Any, optimizer: Any) -> None:
        self.amp, self.optimizer = amp, optimizer

    def forward(self) -> AbstractContextManager[Any]:
        """Nothing: apex has wrapped the functions."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Backward on the loss as apex scales it."""
        with self.amp.scale_loss(loss, self.optimizer) as scaled:
            scaled.backward()

    def update(self, parameters: list[nn.Parameter], largest_norm: float) -> None:  # noqa: ARG002 - apex has its own
        """A step on apex's master weights."""
        nn.utils.clip_grad_norm_(list(self.amp.master_params(self.optimizer)), largest_norm)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Apex's scale of the loss."""
        return dict(self.amp.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with that scale."""
        self.amp.load_state_dict(state)


def find_apex(device: torch.device) -> Any:
    """The module apex.amp. Raises InputError saying what is missing."""
    try:
        amp = importlib.import_module("apex.amp")
    except Exception as error:  # another package of that name may fail in any way
        raise InputError(
            f"--amp_backend apex needs NVIDIA apex, and there is no working apex.amp here ({error}). It is built from "
            "NVIDIA's sources; the PyPI package named apex is unrelated. --amp_backend torch needs nothing "
            "else"
        ) from error
    if device.type != "cuda":
        raise InputError("--amp_backend apex computes on a GPU only: use --amp_backend torch on a CPU")
    return amp
