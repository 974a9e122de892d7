"""Which way a supernet computes: the only place outside `cpu/` that knows of it."""

from __future__ import annotations

import torch

from tfnas.supernet.cpu import CpuKernels


def cpu_kernels(device: torch.device) -> type[CpuKernels] | None:
    """The fast path for tensors on this device; None: layers, grouped operations and foreach updates compute."""
    return CpuKernels if use_cpu_kernels(device) else None


def use_cpu_kernels(device: torch.device) -> bool:
    """On a CPU in full precision; a GPU takes longer to start an operator than to carry out most of a search's."""
    return device.type == "cpu" and not torch.is_autocast_enabled("cpu")
