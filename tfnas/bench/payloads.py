"""Workloads as they are sent to another device: small, and with what their output must be there.

A parcel's weights are drawn at random and then repeat themselves after some numbers. No processor computes faster for
that, but a megabyte of weights is sent as a few kilobytes. Every batch norm is scaled so that it gives numbers of about
1: in a fresh network they fade away from layer to layer, in half precision to nothing, and nothing proves nothing.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.onnx_graph import onnx_bytes_of
from tfnas.bench.worker import example_input, summary
from tfnas.latency.table_contents import Conditions

_PERIOD = 509  # a prime, so that the rows of a matrix differ
_MEMORY_PER_INPUT = 4
_TOLERANCE = {"float32": 1e-3, "float16": 5e-2}
_SMALLEST_SCALE = {"float32": 1e-20, "float16": 1e-3}


@dataclass(frozen=True, eq=False)
class Parcel:
    """A case to send."""

    name: str
    document: dict[str, Any]
    """What the worker receives: `shape` of the input, and `onnx`, the compressed model in base64."""
    output: dict[str, Any]
    """What `worker.summary` says of its output here, in PyTorch."""
    memory_bytes: int
    """About what it takes there: its weights, and its activations estimated by the size of its input."""

    @classmethod
    def of(cls, case: BenchmarkCase, conditions: Conditions, seed: int) -> Parcel:
        """Build, convert and run the case; its weights and input depend on the seed only."""
        dtype: torch.dtype = getattr(torch, conditions.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            module = case.make().eval().requires_grad_(False)
        _repeat_weights(module)
        shape = (conditions.batch_size, case.channels, case.size, case.size)
        values: Tensor = torch.from_numpy(example_input(shape, conditions.dtype, seed))
        output = _scaling_output(module, values.float())
        model = onnx_bytes_of(module.to(dtype), values)
        text = base64.b64encode(zlib.compress(model)).decode("ascii")
        memory_bytes = len(model) + _MEMORY_PER_INPUT * values.nbytes
        return cls(case.name, {"shape": list(shape), "onnx": text}, summary(output.numpy()), memory_bytes)

    def is_output(self, document: dict[str, Any], dtype: str) -> bool:
        """Whether a worker's summary says the same output, as exactly as the number type can."""
        if document["shape"] != self.output["shape"]:
            return False
        rms = self.output["rms"]
        expected = np.array([rms, *self.output["values"]])
        with np.errstate(over="ignore"):
            difference = np.abs(expected - [document["rms"], *document["values"]])
        return bool(np.all(difference <= _TOLERANCE[dtype] * max(rms, _SMALLEST_SCALE[dtype])))


def _repeat_weights(module: nn.Module) -> None:
    with torch.no_grad():
        for weights in module.parameters():
            count = weights.numel()
            period = weights.flatten()[:_PERIOD]
            weights.copy_(period.repeat(-(-count // _PERIOD))[:count].view_as(weights))


def _scaling_output(module: nn.Module, values: Tensor) -> Tensor:
    """What the module gives once every batch norm in it has been scaled, by one factor each, to give about 1."""

    def scale(norm: nn.Module, _: object, output: Tensor) -> Tensor:
        factor = 1 / output.square().mean().sqrt().clamp(min=1e-12)
        for numbers in norm.parameters():
            numbers.mul_(factor)
        return output * factor

    hooks = [part.register_forward_hook(scale) for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        output: Tensor = module(values)
    for hook in hooks:
        hook.remove()
    return output
