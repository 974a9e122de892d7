"""Loops compiled for the processor, where this installation has them: `_loops.c`, for which it needed a C compiler.

One pass of theirs does what takes PyTorch several operators, each of which fetches maps from memory and puts them back.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

Loop = Callable[..., None]

FEW = 2**15  # numbers, for which one thread is enough, as in PyTorch
_TYPES = {"float": torch.float32, "double": torch.float64}


def compiled() -> Any:
    """The module of all loops, for all kinds of processor, or None."""
    try:
        return importlib.import_module("tfnas.supernet._loops")
    except ImportError:
        return None


def loops_of(module: Any, level: str) -> dict[tuple[str, torch.dtype], Loop]:
    """Those for one kind of processor, one of the module's `LEVELS`, by name and type of number."""
    named = (name.rsplit("_", 2) for name in vars(module))
    found = [parts for parts in named if len(parts) == 3 and parts[2] == level]
    return {(loop, _TYPES[kind]): getattr(module, f"{loop}_{kind}_{level}") for loop, kind, _ in found}


_module = compiled()
_loops: Mapping[tuple[str, torch.dtype], Loop] = (
    {} if _module is None else loops_of(_module, _module.LEVELS.split()[-1])
)


def loop_for(name: str, *tensors: Tensor) -> Loop | None:
    """The loop for these tensors, with as many threads as PyTorch would take, or None where there is none.

    They are on a CPU, of one of two types and without gaps. The loop takes addresses and numbers, and checks neither.
    """
    loop = _loops.get((name, tensors[0].dtype))
    if loop is None:
        return None
    for tensor in tensors:
        if not (tensor.is_cpu and tensor.is_contiguous() and tensor.dtype == tensors[0].dtype):
            return None
    threads = 1 if tensors[0].numel() < FEW else torch.get_num_threads()
    return None if threads > 1 and not _module.PARALLEL else partial(loop, threads)
