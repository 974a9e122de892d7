"""What a search's steps on a CPU take by compiled kernels, and by what there is without them, in the same run.

    python scripts/bench_cpu_kernels.py [--space imagenet] [--batch 8] [--image_size 224] [--steps 10] [--variants ...]

Every variant is a process of its own; all of them take the same steps in turn, one process at a time. A cycle is two
weight steps and one architecture step, as in `bench_search.py`; ratios are those of a cycle's, with their quartiles.

`kernels` is tfnas as it is installed. `operators` has PyTorch's operators in place of the kernels in C
(`supernet/cpu/_kernels.c`). `layers` does without all of `supernet/cpu/`, and computes as a GPU does. `compiled` does
without it too, but for its threads: each operation of the supernet is plain layers given to torch.compile, and those of
a block are computed in parallel. They are compiled before the first step that is timed, for the widths of the first
epoch; how long that took is printed. A second run finds the results in torch's cache (TORCHINDUCTOR_CACHE_DIR).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import FunctionType
from typing import Any

import torch
from bench_search import Steps, answer, make_steps, measure
from torch import Tensor
from torch.nn import functional

from tfnas.nn.blocks import MBConvWeights
from tfnas.supernet import elastic, supernet
from tfnas.supernet.cpu import CpuKernels, row_ops
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import Path
from tfnas.utils.devices import processor_name, runtime_settings, usable_cores

VARIANTS = ("kernels", "operators", "layers", "compiled")


def choose(variant: str, dynamic: bool) -> None:
    """Let this process compute as the variant does."""
    if variant == "kernels":
        assert row_ops.level is not None, "this installation has no compiled kernels"
        return
    row_ops.level = None
    if variant == "layers":
        elastic.use_cpu_kernels = lambda _: False
    elif variant == "compiled":
        torch._dynamo.config.recompile_limit = 1000
        torch._dynamo.config.accumulated_recompile_limit = 100_000
        compiled = CompiledOperations(dynamic)
        ElasticMBConv.forward = lambda self, features: compiled(self, features)  # type: ignore[method-assign]
        supernet.weighted_sum = lambda operations, features, scalars: CompiledSum.apply(
            features, scalars, operations, compiled
        )


# ---- plain layers, compiled for each operation --------------------------------------------------------------------


def plain_layers(features: Tensor, weights: MBConvWeights, stride: int, activation: str, residual: bool) -> Tensor:
    """An MBConv with batch statistics."""
    act = functional.relu if activation == "relu" else functional.silu
    kernel, maps = weights.depthwise, features
    if weights.expansion is not None:
        maps = act(elastic.batch_normalize(functional.conv2d(maps, weights.expansion)))
    maps = functional.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=len(kernel))
    maps = act(elastic.batch_normalize(maps))
    if weights.reduce is not None and weights.expand is not None:
        reduced = act(functional.conv2d(maps.mean((2, 3), keepdim=True), weights.reduce, weights.reduce_bias))
        maps = maps * torch.sigmoid(functional.conv2d(reduced, weights.expand, weights.expand_bias))
    maps = elastic.batch_normalize(functional.conv2d(maps, weights.projection))
    return features + maps if residual else maps


class CompiledOperations:
    """`plain_layers`, compiled for each operation: with code of its own, and so with guards of its own."""

    def __init__(self, dynamic: bool) -> None:
        self.dynamic, self.functions = dynamic, {}

    def __call__(self, operation: ElasticMBConv, features: Tensor, frozen: bool = False) -> Tensor:
        """The operation's output."""
        if operation not in self.functions:
            code = plain_layers.__code__.replace(co_name=f"operation_{len(self.functions)}")
            own = FunctionType(code, plain_layers.__globals__)
            self.functions[operation] = torch.compile(own, dynamic=self.dynamic)
        block = operation.block
        weights = operation.active_weights(frozen)
        return self.functions[operation](features, weights, block.stride, block.activation, block.has_residual)


class CompiledSum(torch.autograd.Function):
    """The weighted sum of a block's operations, each with a graph of its own, computed in parallel."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, scalars: Tensor, operations: Any, compiled: CompiledOperations) -> Tensor:
        """Of `operations`, each times its entry of `scalars`."""
        needs_features = ctx.needs_input_grad[0]

        def compute(operation: ElasticMBConv) -> tuple[Tensor, Tensor]:
            with torch.set_grad_enabled(needs_features):
                leaf = features.detach().requires_grad_(needs_features)
                return leaf, compiled(operation, leaf, frozen=True)

        ctx.graphs = CpuKernels.parallel_map(compute, list(operations))
        ctx.save_for_backward(scalars)
        outputs = [scalar * output.detach() for scalar, (_, output) in zip(scalars, ctx.graphs, strict=True)]
        return sum(outputs[1:], outputs[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """To the features and the scalars."""
        (scalars,) = ctx.saved_tensors

        def compute(index: int) -> tuple[Tensor, Tensor | None]:
            leaf, output = ctx.graphs[index]
            to_scalar = (output.detach() * gradient).sum()
            if not ctx.needs_input_grad[0]:
                return to_scalar, None
            return to_scalar, torch.autograd.grad(output, leaf, gradient * scalars[index])[0]

        found = CpuKernels.parallel_map(compute, range(len(scalars)))
        ctx.graphs = None
        to_features = sum(part for _, part in found if part is not None) if ctx.needs_input_grad[0] else None
        return to_features, torch.stack([to_scalar for to_scalar, _ in found]), None, None


# ---- the whole -----------------------------------------------------------------------------------------------------


def warm_up(steps: Steps) -> None:
    """Take every operation once in each kind of step, on one thread, as the pool's threads compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for index in range(len(steps.space.operations)):
        steps.weight([Path((index,) * len(steps.space.blocks))])
    steps.architecture()
    torch.set_num_threads(threads)


def work(variant: str, arguments: argparse.Namespace, requests: Connection) -> None:
    """A process's life."""
    with runtime_settings(arguments.threads or usable_cores(), deterministic=False):
        choose(variant, arguments.dynamic)
        steps, start = make_steps("project", arguments), time.perf_counter()
        warm_up(steps)
        print(f"{variant}: the first step of every operation took {time.perf_counter() - start:.0f} s", flush=True)
        if arguments.processor_time:
            steps.clock = time.process_time
        answer(steps, requests)


def cycles(seconds: dict[str, list[float]]) -> list[float]:
    """Seconds of every cycle."""
    weights, architectures = seconds["weight"], seconds["architecture"]
    return [sum(weights[2 * number : 2 * number + 2]) + one for number, one in enumerate(architectures)]


def quartiles(values: Sequence[float]) -> str:
    """The median, and the quartiles in brackets."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="imagenet")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10, help="cycles that are timed, after one that is not")
    parser.add_argument("--threads", type=int, default=0, help="processor threads, 0 for all cores")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--dynamic", action="store_true", help="compile for all sizes (torch.compile's dynamic=True)")
    parser.add_argument("--processor_time", action="store_true", help="not the time that passes: where others compute")
    arguments = parser.parse_args()
    arguments.device = "cpu"
    seconds, memory = measure(arguments.variants, arguments, work)
    first = cycles(seconds[arguments.variants[0]])
    print(f"{processor_name()}, {arguments.threads or usable_cores()} threads, torch {torch.__version__}")
    for variant in arguments.variants:
        own = cycles(seconds[variant])
        ratios = [one / other for one, other in zip(own, first, strict=True)]
        steps = ", ".join(f"{what} step {statistics.median(taken):.3f} s" for what, taken in seconds[variant].items())
        print(
            f"{variant}: cycle {statistics.median(own):.3f} s, {quartiles(ratios)} of that of {arguments.variants[0]}"
        )
        print(f"    {steps}, {memory[variant] / 1e9:.2f} GB at most")


if __name__ == "__main__":
    main()
