"""Before a long run: what the space spans, and what the run will take, measured on the first steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch

from tfnas.nn import Counts, Network
from tfnas.nn.counting import count_by_part
from tfnas.search.sampling import sample_other_path, sample_path
from tfnas.search.session import Session
from tfnas.search.steps import architecture_loss, weight_loss
from tfnas.space import SearchSpace


def count_range(space: SearchSpace, num_classes: int) -> tuple[Counts, Counts]:
    """Smallest and largest parameters and MACs over all operations, widths and depths (each by itself)."""
    bounds = []
    for end, best in ((0, min), (1, max)):
        networks = [_uniform_counts(space, operation, end, num_classes) for operation in range(len(space.operations))]
        params = _best_total(space, [{k: v.params for k, v in counts.items()} for counts in networks], best)
        macs = _best_total(space, [{k: v.macs for k, v in counts.items()} for counts in networks], best)
        bounds.append(Counts(params, macs))
    return bounds[0], bounds[1]


def _uniform_counts(space: SearchSpace, operation: int, end: int, num_classes: int) -> dict[str, Counts]:
    """Counts by part of the deepest network of one operation, at its smallest (end 0) or largest (1) widths."""
    widths = [space.width_range(place, space.operations[operation])[end] for place in space.blocks]
    depths = [stage.blocks for stage in space.stages]
    architecture = space.architecture([operation] * len(widths), depths, widths, num_classes)
    with torch.device("meta"):
        network = Network(architecture)
    return count_by_part(network, space.image_size)


def _best_total(space: SearchSpace, networks: list[dict[str, int]], best: Callable[..., int]) -> int:
    """The best choice of operations and depths when every part counts by itself."""
    blocks = {f"stage{place.stage + 1}.{place.position}" for place in space.blocks}
    total = sum(value for name, value in networks[0].items() if name not in blocks)
    for stage, depths in enumerate(space.depth_choices, 1):
        per_block = [best(counts[f"stage{stage}.{position}"] for counts in networks) for position in range(max(depths))]
        reached = list(accumulate(per_block, initial=0))
        total += best(reached[depth] for depth in depths)
    return total


@dataclass(frozen=True)
class Forecast:
    """Seconds of one warm-up step, one bi-sampling step and one architecture step, and of what is left of the run."""

    warmup_step: float
    weight_step: float
    architecture_step: float
    remaining: float


def forecast(session: Session, images: torch.Tensor, labels: torch.Tensor) -> Forecast:
    """Rehearse every kind of step on a batch, twice, the second timed; nothing of the session is changed."""
    learner, schedule = session.learner, session.setup.schedule
    noise = torch.Generator().manual_seed(0)
    weights = list(learner.supernet.parameters())

    def weight_rehearsal(paths: int) -> None:
        first = sample_path(learner.parameters.log_alphas, noise)
        routes = [first, sample_other_path(first, learner.parameters.log_alphas.shape[1], noise)][:paths]
        loss, _ = weight_loss(learner, images, labels, routes)
        torch.autograd.grad(loss, weights, allow_unused=True)

    def architecture_rehearsal() -> None:
        loss, _ = architecture_loss(learner, images, labels, schedule.T, noise)
        torch.autograd.grad(loss, list(learner.parameters.parameters()))

    warmup = _second_time(lambda: weight_rehearsal(1))
    weight = _second_time(lambda: weight_rehearsal(2))
    architecture = _second_time(architecture_rehearsal)
    steps = -(-len(session.setup.data.weights) // schedule.batch_size)
    whole = schedule.warmup_epochs * steps * warmup
    whole += (schedule.epochs - schedule.warmup_epochs) * (steps * weight + -(-steps // 2) * architecture)
    left = 1 - (session.epoch + session.step / steps) / schedule.epochs
    return Forecast(warmup, weight, architecture, whole * left)


def _second_time(work: Callable[[], None]) -> float:
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
