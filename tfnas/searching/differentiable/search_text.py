"""What a person reads of a search: what is searched, how long that will take, a line per epoch, and warnings."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tfnas.core.choice import Choice
from tfnas.core.cost import Cost
from tfnas.latency.default_table import is_default, search_remarks
from tfnas.latency.meet_target import SpaceBounds
from tfnas.runs.algorithm import RunProgress
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.differentiable.architecture_parameters import trains_architecture
from tfnas.searching.differentiable.inherited_evaluation import SanityNetworks, evaluate_inherited
from tfnas.searching.differentiable.search_config import Schedule
from tfnas.searching.differentiable.search_setup import SearchSetup, evaluation_batch_count, probe_batch_count
from tfnas.searching.differentiable.supernet_learner import SupernetLearner, architecture_loss, weight_loss
from tfnas.spaces.mbconv.mbconv_family import count_range
from tfnas.supernet.elastic import cpu_kernels
from tfnas.utils.text import clock, short

EVALUATED_EPOCHS = 4
"""The last epochs, in which a sampled path is evaluated on the held-out part."""
REHEARSALS = 20
REHEARSAL_SECONDS = 1.0
REHEARSED_PART = 0.1
"""The part of a run's steps that is rehearsed at most: a short run does not wait for its forecast."""
EVALUATED_PATHS = 4
"""Sampled paths that are evaluated beside the result."""
_NOT_COMPILED = "          without compiled kernels, hence slower: reinstall with a C compiler available"
COLLAPSED_SHARE = 0.5
UNIFORM_ENTROPY = 0.98
STILL = 1e-3


def operation_entropy(choice: Choice) -> float:
    """Mean entropy of the blocks' operation probabilities, over that of a uniform choice: 1 undecided, 0 decided."""
    if choice.log_alphas.shape[1] == 1:
        return 0.0
    entropies = -(np.exp(choice.log_alphas) * choice.log_alphas).sum(1)
    return float(entropies.mean() / math.log(choice.log_alphas.shape[1]))


def depth_entropy(choice: Choice) -> float:
    """The same for the depth probabilities of the stages that have a choice; 0 if none has."""
    values = [
        -(np.exp(log_depths) * log_depths).sum() / math.log(len(log_depths))
        for log_depths in choice.log_depths
        if len(log_depths) > 1
    ]
    return float(np.mean(values)) if values else 0.0


def collapsed(choice: Choice) -> str | None:
    """The operation that every block has settled on with a clear majority, by name; None if there is no such one."""
    best = set(choice.best_operations)
    if len(best) > 1 or len(choice.space.operations) == 1 or len(choice.space.blocks) == 1:
        return None
    surest = np.exp(choice.log_alphas.max(1))
    return choice.space.operations[best.pop()].name if surest.min() > COLLAPSED_SHARE else None


def near_chance(top1: float, chance: float) -> bool:
    """Whether an accuracy is less than twice chance, and less than a tenth of the way up from it (all in percent)."""
    return top1 < min(2 * chance, chance + (100 - chance) / 10)  # of two classes, twice chance is all there is


def health_warnings(choice: Choice, history: Sequence[dict[str, float]]) -> list[str]:
    """What is wrong after an epoch that trained the architecture, in words that say what it means."""
    found = []
    operation = collapsed(choice)
    if operation is not None:
        found.append(
            f"every block has settled on {operation}: the search has collapsed. The supernet favours operations "
            "that train fast; try a longer warm-up (--warmup_epochs) or a lower --a_lr"
        )
    moves = [entry["alpha_move"] for entry in history if "alpha_move" in entry][-3:]
    if len(moves) == 3 and max(moves) < STILL:
        found.append(
            f"operation probabilities moved by less than {STILL:g} in each of the last three epochs: "
            "the architecture has stopped changing. If it is still undecided, raise --a_lr or --epochs"
        )
    return found


def description(setup: SearchSetup, place: str) -> list[str]:
    """What is searched, on what, for which target and where."""
    smallest, largest = count_range(setup.space, setup.data.num_classes)
    bounds = SpaceBounds.of(setup.space, setup.table, setup.data.num_classes).description
    kernels = cpu_kernels(setup.device)
    slower = kernels is not None and not kernels.compiled()
    return [
        f"data      {setup.data.describe()}",
        f"space     {setup.space.name}: {len(setup.space.blocks)} blocks of {len(setup.space.operations)} "
        f"operations, {short(smallest.params)} to {short(largest.params)} parameters, "
        f"{short(smallest.macs)} to {short(largest.macs)} MACs",
        f"table     {setup.table.description}",
        *table_remarks(setup),
        f"target    {setup.table.quantity(setup.target_ms, 6)}; reachable {bounds}",
        f"train     {setup.schedule.epochs} epochs, {setup.schedule.warmup_epochs} of them warm-up, batch "
        f"{setup.schedule.batch_size}, on {place}, seed {setup.config.seed}",
        *([_NOT_COMPILED] if slower else []),
    ]


def table_remarks(setup: SearchSetup) -> tuple[str, ...]:
    """What to know about where the table's figures hold."""
    shipped = is_default(setup.lookup_path, setup.space)
    return search_remarks(setup.table, shipped=shipped, space_flags=setup.space_flags)


def forecast_line(forecast: Forecast, seconds: float, processes: int) -> str:
    """How long the rest of the run will take."""
    without = "data loading" + (" and exchange" if processes > 1 else "")
    return (
        f"time      about {clock(seconds)}: a weight step {1000 * forecast.weight_step:.0f} ms, an architecture step "
        f"{1000 * forecast.architecture_step:.0f} ms, measured just now (without {without})"
    )


def training_numbers(averages: Mapping[str, float], cost: Cost) -> str:
    """Training losses and accuracies in words; those of the architecture where it is trained."""
    text = f"loss {averages['weight_loss']:.3f}  sampled paths {averages['path_accuracy']:.1f} %"
    if f"expected_{cost.name}" in averages:
        text += f"  expected {cost.quantity(averages[f'expected_{cost.name}'])}"
    return text


def epoch_text(entry: Mapping[str, float], cost: Cost) -> str:
    """An epoch's numbers in a line."""
    line = training_numbers(entry, cost)
    if "alpha_move" in entry:
        line += (
            f"  derived {cost.quantity(entry[f'derived_{cost.name}'])}  T {entry['temperature']:.2f}  "
            f"entropy ops {entry['operation_entropy']:.2f} depth {entry['depth_entropy']:.2f}"
        )
    if "probe_loss" in entry:
        tau = f", tau {entry['probe_tau']:+.2f}" if "probe_tau" in entry else ""
        line += f"  probes {entry['probe_top1']:.1f} % (loss {entry['probe_loss']:.3f}{tau})"
    if "held_out_accuracy" in entry:
        line += f"  held-out path {entry['held_out_accuracy']:.1f} %"
    return line


def out_of_memory(setup: SearchSetup, how_to_resume: str) -> str:
    """What takes less memory."""
    batch_size, number = setup.schedule.batch_size, setup.processes.world_size
    over = f" over {number} processes" if number > 1 else ""
    saver = "" if setup.config.low_memory else f"{how_to_resume} --low_memory, which takes less. Or: "
    return (
        f"out of memory at batch size {batch_size}{over}. The last saved state is intact. {saver}The batch size of a "
        "run cannot change: start a new one with a smaller --image_size or --batch_size, for instance "
        f"--batch_size {batch_size // 2}"
    )


# ---- how long it will take -----------------------------------------------------------------------------------------


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

    schedule, steps, networks = setup.schedule, setup.steps_per_epoch, len(sanity.networks)
    later_epochs, evaluations = schedule.epochs - schedule.warmup_epochs, Evaluations.of(setup, sanity)
    evaluated = schedule.epochs * evaluations.probes + evaluations.conclusion
    return Forecast(
        schedule,
        steps,
        warmup_step=_typical_seconds(lambda: weight_rehearsal(1), schedule.warmup_epochs * steps),
        weight_step=_typical_seconds(lambda: weight_rehearsal(2), later_epochs * steps),
        architecture_step=_typical_seconds(architecture_rehearsal, later_epochs * -(-steps // 2)),
        evaluation=_typical_seconds(evaluation_rehearsal, evaluated // networks) / networks,
        draw=sanity.seconds / networks,
        saving=progress.seconds.get("saving", 0.0) / (progress.epoch + 1),
        evaluations=evaluations,
    )


def _typical_seconds(work: Callable[[], None], steps: int) -> float:
    """Mean of up to twenty calls in about a second, at least one, after one that is not counted.

    `work` is a step of which the run takes `steps`; no more than a tenth of them is rehearsed. The mean, because steps
    along different paths take different times, and because a busy machine stays busy.
    """
    work()
    seconds: list[float] = []
    most = max(1, min(REHEARSALS, int(REHEARSED_PART * steps)))
    while not seconds or (len(seconds) < most and sum(seconds) < REHEARSAL_SECONDS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.fmean(seconds)
