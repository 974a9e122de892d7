"""What the search learns about the architecture (TF-NAS, sections 3.2 and 3.3), and how it is sampled and costed.

Operation log-probabilities per block and depth logits per stage; learning rate and temperature as functions of the
epoch (counted from 0); bi-sampling for the weights, a Gumbel-softmax mixture for the architecture, and the expected
latency of a mixture, differentiable in its weights (equations 5 and 9). All noise comes from the generator handed in
(on the CPU, so that a seed gives the same run on every device).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from tfnas.core.space import SearchSpace
from tfnas.latency.cost_table import LatencyTable
from tfnas.searching.differentiable.search_config import Schedule
from tfnas.supernet.supernet import Path


class ArchitectureParameters(nn.Module):
    """`log_alphas` is (blocks, operations), initially uniform; `betas` has a vector per stage, initially zero.

    TF-NAS, sections 3.2 and 3.3.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        uniform = torch.zeros(len(space.blocks), len(space.operations)).log_softmax(1)
        self.log_alphas = nn.Parameter(uniform)
        self.betas = nn.ParameterList(nn.Parameter(torch.zeros(len(choices))) for choices in space.depth_choices)

    def depth_weights(self) -> tuple[Tensor, ...]:
        """Depth probabilities: softmax(betas) of every stage."""
        return tuple(betas.softmax(0) for betas in self.betas)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Make log_alphas log-probabilities again after an update. The shift of betas leaves their softmax as it is."""
        for parameter in self.parameters():
            parameter.copy_(parameter.log_softmax(-1))


def weight_learning_rate(schedule: Schedule, epoch: int) -> float:
    """Cosine decay from w_lr towards 0 over all epochs; constant within an epoch."""
    return 0.5 * schedule.w_lr * (1 + math.cos(math.pi * epoch / schedule.epochs))


def trains_architecture(schedule: Schedule, epoch: int) -> bool:
    """Whether the epoch comes after the warm-up."""
    return epoch >= schedule.warmup_epochs


def temperature(schedule: Schedule, epoch: int) -> float:
    """Gumbel-softmax temperature: T, multiplied by T_decay after each epoch that trained the architecture."""
    return schedule.T * schedule.T_decay ** max(0, epoch - schedule.warmup_epochs)


def gumbel_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise of the shape, type and device of `like`."""
    exponential = torch.empty(like.shape, dtype=like.dtype).exponential_(generator=generator)
    # exponential_ can return 0 in single precision; its logarithm must stay finite
    return -exponential.clamp_min(torch.finfo(like.dtype).tiny).log().to(like.device)


def sample_path(log_alphas: Tensor, generator: torch.Generator) -> Path:
    """Path 1: in every block the operation with the largest log_alpha + Gumbel noise."""
    noisy = log_alphas.detach() + gumbel_noise(log_alphas, generator)
    return Path(tuple(noisy.argmax(1).tolist()))


def sample_other_path(path: Path, num_operations: int, generator: torch.Generator) -> Path:
    """Path 2: in every block an operation drawn uniformly from those that the path does not take."""
    if num_operations == 1:  # a space without a choice has no other path
        return path
    steps = torch.randint(1, num_operations, (len(path.operations),), generator=generator).tolist()
    return Path(tuple((taken + step) % num_operations for taken, step in zip(path.operations, steps, strict=True)))


def sample_paths(
    log_alphas: Tensor,
    number: int,
    generator: torch.Generator,
    depth_choices: Sequence[Sequence[int]] | None = None,
) -> list[Path]:
    """The paths of a weight step: path 1 and, where `number` is 2, path 2.

    With `depth_choices` each is one network: it has a depth of its own in every stage. Without, it goes to the sinks.
    """
    paths = [sample_path(log_alphas, generator)]
    if number == 2:
        paths.append(sample_other_path(paths[0], log_alphas.shape[1], generator))
    if depth_choices is None:
        return paths
    return [Path(path.operations, sample_depths(depth_choices, generator)) for path in paths]


def sample_depths(depth_choices: Sequence[Sequence[int]], generator: torch.Generator) -> tuple[int, ...]:
    """A depth for every stage, drawn uniformly from its choices."""
    return tuple(choices[int(torch.randint(len(choices), (), generator=generator))] for choices in depth_choices)


def sample_mixture_weights(log_alphas: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Gumbel-softmax weights (blocks, operations), differentiable in log_alphas."""
    return ((log_alphas + gumbel_noise(log_alphas, generator)) / temperature).softmax(1)


def operations_ms(space: SearchSpace, table: LatencyTable, widths: Sequence[Sequence[int]]) -> Tensor:
    """Looked-up milliseconds (blocks, operations), float64, of every operation at its current width."""
    return torch.tensor(
        [
            [
                table.block_ms(space.block(place, operation, width), place.input_size)
                for operation, width in zip(space.operations, row, strict=True)
            ]
            for place, row in zip(space.blocks, widths, strict=True)
        ],
        dtype=torch.float64,
    )


def expected_ms(
    space: SearchSpace, table_ms: Tensor, base_ms: float, weights: Tensor, depth_weights: Sequence[Tensor]
) -> Tensor:
    """Expected milliseconds, a scalar: base + over stages and depths d, depth weight * latency of blocks 1..d.

    `table_ms` and the mixture's `weights` are (blocks, operations).
    """
    blocks = tuple(stage.blocks for stage in space.stages)
    used = _blocks_used(blocks, space.depth_choices, weights.dtype, weights.device) @ torch.cat(tuple(depth_weights))
    return base_ms + used @ (weights * table_ms).sum(1)


@cache  # a device would have to wait for it to be handed over
def _blocks_used(
    blocks: tuple[int, ...], depth_choices: tuple[tuple[int, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Which blocks each depth choice uses: (blocks of all stages, choices of all stages), ones and zeros."""
    stages = [
        torch.tensor([[float(position < depth) for depth in choices] for position in range(number)])
        for number, choices in zip(blocks, depth_choices, strict=True)
    ]
    used: Tensor = torch.block_diag(*stages)  # type: ignore[no-untyped-call]
    return used.to(device, dtype)
