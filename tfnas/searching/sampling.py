"""Drawing operations: bi-sampling for the weights, a Gumbel-softmax mixture for the architecture (TF-NAS, section 3.2).

All noise comes from the generator handed in (on the CPU, so that a seed gives the same run on every device).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tfnas.supernet import Path


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
