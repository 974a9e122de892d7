"""Before a long run: what the space spans, and what the run will take, measured on the first steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from tfnas.core.space import SearchSpace
from tfnas.core.units import Counts
from tfnas.runs.algorithm import RunProgress
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.differentiable.architecture_parameters import trains_architecture
from tfnas.searching.differentiable.inherited_evaluation import SanityNetworks, evaluate_inherited
from tfnas.searching.differentiable.search_config import Schedule
from tfnas.searching.differentiable.search_setup import SearchSetup, evaluation_batch_count, probe_batch_count
from tfnas.searching.differentiable.supernet_learner import SupernetLearner, architecture_loss, weight_loss
from tfnas.spaces.families import part_counts
from tfnas.spaces.mbconv.mbconv_family import block_counts
from tfnas.spaces.mbconv.table_keys import shallowest_architecture

EVALUATED_EPOCHS = 4
"""The last epochs, in which a sampled path is evaluated on the held-out part."""
REHEARSALS = 20
REHEARSAL_SECONDS = 1.0
EVALUATED_PATHS = 4
"""Sampled paths that are evaluated beside the result."""


def count_range(space: SearchSpace, num_classes: int) -> tuple[Counts, Counts]:
    """Smallest and largest parameters and MACs over all operations, widths and depths (each by itself)."""
    parts = part_counts(shallowest_architecture(space, num_classes))
    fixed = [counts for name, counts in parts.items() if not name.startswith("stage")]
    ends = []
    for end, best in ((0, min), (1, max)):
        blocks = [
            [
                block_counts(space.block(place, operation, space.width_range(place, operation)[end]), place.input_size)
                for operation in space.operations
            ]
            for place in space.blocks
        ]
        params = _best_total(space, [[counts.params for counts in row] for row in blocks], best)
        macs = _best_total(space, [[counts.macs for counts in row] for row in blocks], best)
        ends.append(Counts(params + sum(part.params for part in fixed), macs + sum(part.macs for part in fixed)))
    return ends[0], ends[1]


def _best_total(space: SearchSpace, values: list[list[int]], best: Callable[[Iterable[int]], int]) -> int:
    """The best choice of operations (of each block's row) and depths when every block counts by itself."""
    total = 0
    for stage, first, depths in zip(space.stages, space.first_blocks, space.depth_choices, strict=True):
        reached = list(accumulate((best(row) for row in values[first : first + stage.blocks]), initial=0))
        total += best(reached[depth] for depth in depths)
    return total


@dataclass(frozen=True)
class Evaluations:
    """What a run evaluates with inherited weights, as numbers of batches, each by one network.

    `probes` are those of sanity networks after every epoch, `path` after the last ones too, `conclusion` at the end,
    for which so many `candidates` are drawn.
    """

    probes: int = 0
    path: int = 0
    conclusion: int = 0
    candidates: int = 0

    @classmethod
    def of(cls, setup: SearchSetup, sanity: SanityNetworks) -> Evaluations:
        """Those of a run in one process."""
        held_out, candidates = evaluation_batch_count(setup), setup.schedule.candidates
        return cls(
            probes=len(sanity.networks) * probe_batch_count(setup),
            path=held_out,
            conclusion=held_out * (1 + EVALUATED_PATHS + (candidates if candidates > 1 else 0)),
            candidates=candidates - 1,
        )


@dataclass(frozen=True)
class Forecast:
    """Seconds of one warm-up step, one weight step after it and one architecture step, for a run of this schedule.

    Between epochs and at the end: `evaluation` of one network on one batch, `draw` of a candidate, and `saving`.
    """

    schedule: Schedule
    steps_per_epoch: int
    warmup_step: float
    weight_step: float
    architecture_step: float
    evaluation: float = 0.0
    draw: float = 0.0
    saving: float = 0.0
    evaluations: Evaluations = Evaluations()

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        number = self.evaluations
        return self.trained + number.conclusion * self.evaluation + number.candidates * self.draw

    @property
    def trained(self) -> float:
        """Seconds until all epochs are done, and the conclusion begins."""
        return self._until(self.schedule.epochs, 0)

    def done(self, progress: RunProgress) -> float:
        """Seconds, by this forecast, that what has been done so far takes."""
        return self._until(progress.epoch, progress.step)

    def _until(self, epoch: int, step: int) -> float:
        """Seconds from the beginning of the run to a step of an epoch."""
        schedule, steps = self.schedule, self.steps_per_epoch
        warmup, later = steps * self.warmup_step, steps * self.weight_step + -(-steps // 2) * self.architecture_step
        current = later if trains_architecture(schedule, epoch) else warmup
        warmup_epochs = min(epoch, schedule.warmup_epochs)
        with_path = max(0, epoch - max(0, schedule.epochs - EVALUATED_EPOCHS))
        ends = (epoch * self.evaluations.probes + with_path * self.evaluations.path) * self.evaluation
        steps_done = warmup_epochs * warmup + (epoch - warmup_epochs) * later + current * step / steps
        return steps_done + ends + epoch * self.saving


def forecast(
    learner: SupernetLearner,
    setup: SearchSetup,
    sanity: SanityNetworks,
    progress: RunProgress,
    batch: Sequence[torch.Tensor],
) -> Forecast:
    """Rehearse every kind of step on a batch and time it; nothing of the learner is changed."""
    images, labels = learner.place(*batch)
    noise, alone = torch.Generator().manual_seed(0), DistributedContext(0, 1, setup.device)

    def weight_rehearsal(paths: int) -> None:
        loss, _ = weight_loss(learner, images, labels, learner.sample_paths(paths, noise))
        torch.autograd.grad(loss, learner.weights, allow_unused=True)

    def architecture_rehearsal() -> None:
        loss, _ = architecture_loss(learner, images, labels, setup.schedule.T, noise)
        torch.autograd.grad(loss, list(learner.parameters.parameters()))

    def evaluation_rehearsal() -> None:
        evaluate_inherited(learner.supernet, sanity.networks, [(images, labels)], alone)

    return Forecast(
        setup.schedule,
        setup.steps_per_epoch,
        warmup_step=_typical_seconds(lambda: weight_rehearsal(1)),
        weight_step=_typical_seconds(lambda: weight_rehearsal(2)),
        architecture_step=_typical_seconds(architecture_rehearsal),
        evaluation=_typical_seconds(evaluation_rehearsal) / len(sanity.networks),
        draw=sanity.seconds / len(sanity.networks),
        saving=progress.seconds.get("saving", 0.0) / (progress.epoch + 1),
        evaluations=Evaluations.of(setup, sanity),
    )


def _typical_seconds(work: Callable[[], None]) -> float:
    """Mean of up to twenty calls in about a second, at least one, after one that is not counted.

    The mean, because steps along different paths take different times, and because a busy machine stays busy.
    """
    work()
    seconds: list[float] = []
    while not seconds or (len(seconds) < REHEARSALS and sum(seconds) < REHEARSAL_SECONDS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.fmean(seconds)
