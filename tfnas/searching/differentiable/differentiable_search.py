"""The search, from a configuration to an architecture that meets its target (TF-NAS, algorithm 1).

    result = search(SearchConfig(target_lat=15))

`result.architecture` is what to build, `result.run_dir` contains all files. Under torchrun every process calls this.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import Tensor, nn

from tfnas.core.architecture import Architecture
from tfnas.core.errors import RunFailed
from tfnas.runs.algorithm import Algorithm, Show
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import SEARCH_KIND, RunDirectory, State
from tfnas.runs.run_reporter import place_text
from tfnas.runs.run_settings import SEARCH_MAY_CHANGE, SEARCH_RESCUES
from tfnas.runs.session import run_algorithm, with_resumed
from tfnas.searching.differentiable.architecture_parameters import (
    sample_path,
    temperature,
    trains_architecture,
    weight_learning_rate,
)
from tfnas.searching.differentiable.inherited_evaluation import (
    SanityNetworks,
    evaluate_inherited,
    path_accuracy,
    probe_entry,
    sample_sanity_networks,
)
from tfnas.searching.differentiable.search_conclusion import (
    choose_architecture,
    evaluate_result,
    result_numbers,
    sanity_numbers,
    show_results,
)
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import (
    SearchSetup,
    evaluation_batches,
    held_out_batches,
    prepare,
    probe_batches,
    shared_batches,
)
from tfnas.searching.differentiable.search_text import (
    EVALUATED_EPOCHS,
    Forecast,
    depth_entropy,
    description,
    epoch_text,
    forecast,
    forecast_line,
    health_warnings,
    operation_entropy,
    out_of_memory,
    training_numbers,
)
from tfnas.searching.differentiable.supernet_learner import (
    ArchitectureStep,
    SupernetLearner,
    WeightStep,
    architecture_loss,
    build_learner,
    check_agreement,
    learned_choice,
    look_up,
    scale_widths,
    weight_loss,
)
from tfnas.supernet import supernet

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Batch = tuple[Tensor, Tensor] | list[Tensor]
"""Images and labels."""


@dataclass(frozen=True)
class SearchResult:
    """What a search returns: the architecture, where the run's files are, and the numbers of `summary.json`."""

    architecture: Architecture
    run_dir: Path
    summary: dict[str, Any]


def search(config: SearchConfig, console: Console | None = None, given: Collection[str] | None = None) -> SearchResult:
    """Search, or resume the search that `config.resume` names.

    `given` names the settings that were said, for a resumed run to compare with its own; by default those that differ
    from their defaults.

    Raises InputError, Infeasible (before anything is written), RunFailed and Interrupted (state saved).
    """
    config, resumed = with_resumed(config, SEARCH_KIND, given, SEARCH_MAY_CHANGE)

    def open_search(processes: DistributedContext) -> DifferentiableSearch:
        setup = processes.barrier(lambda: prepare(config, processes))
        return DifferentiableSearch(setup, sample_sanity_networks(setup))

    run_dir, summary = run_algorithm(config, open_search, console, resumed)
    return SearchResult(Architecture.parse(summary["architecture"]), run_dir, summary)


class DifferentiableSearch(Algorithm[Batch]):
    """TF-NAS: weight steps along sampled paths and, after the warm-up, an architecture step after every second one."""

    kind = SEARCH_KIND
    rescues = SEARCH_RESCUES
    lower = "--w_lr or --a_lr"
    is_forecast = True

    def __init__(self, setup: SearchSetup, sanity: SanityNetworks) -> None:
        schedule = setup.schedule
        super().__init__(
            setup.config,
            setup.processes,
            epochs=schedule.epochs,
            steps_per_epoch=setup.steps_per_epoch,
            threads=schedule.threads,
        )
        self.setup, self.sanity = setup, sanity
        self.noise = torch.Generator().manual_seed(setup.config.seed)
        self.learner: SupernetLearner
        self.last_probabilities: Tensor
        self.forecast: Forecast | None = None
        self.concluded_seconds = 0.0
        """By the forecast, of what has been concluded."""
        self.architecture: Architecture

    def build(self) -> None:
        """Supernet and architecture parameters, with weights from the configuration's seed."""
        self.learner = build_learner(self.setup)
        self.last_probabilities = self._probabilities()

    # ---- one step ---------------------------------------------------------------------------------------------

    def batches(self) -> Iterable[Batch]:
        """Batches of the weight part."""
        self.held_out: Iterator[Batch] | None = None
        epoch, step = self.progress.epoch, self.progress.step
        return shared_batches(self.setup, self.setup.data.weights, turn=epoch, first=step)

    def step(self, batch: Batch) -> None:
        """A weight step on the batch; after the warm-up, behind every second one, an architecture step on another."""
        learner, schedule, progress = self.learner, self.setup.schedule, self.progress
        with progress.timed("weights"):
            learning = trains_architecture(schedule, progress.epoch)
            paths = learner.sample_paths(2 if learning else 1, self.noise)
            for group in learner.weight_optimizer.param_groups:
                group["lr"] = weight_learning_rate(schedule, progress.epoch)
            loss, correct, images = weight_step(learner, *learner.place(*batch), paths)
            progress.add(images=images, weight_steps=1, weight_loss=loss, correct=correct)
        if learning and progress.step % 2 == 0:
            with progress.timed("architecture"):
                self.held_out = self.held_out or held_out_batches(self.setup, progress.epoch, progress.step // 2)
                heat, other = temperature(schedule, progress.epoch), learner.place(*next(self.held_out))
                entropy, latency, expected = architecture_step(learner, *other, heat, self.noise)
                progress.add(architecture_steps=1, cross_entropy=entropy, latency_loss=latency, expected_cost=expected)

    # ---- the end of an epoch, and of the run ------------------------------------------------------------------

    def finish_epoch(self) -> dict[str, float]:
        """Scale widths if the architecture was trained, and evaluate.

        What is evaluated is the sanity networks and, in the last epochs, a sampled path too, on the whole held-out
        part.
        """
        setup, learner, progress = self.setup, self.learner, self.progress
        self.held_out = None
        entry = self.averages()
        learning = trains_architecture(setup.schedule, progress.epoch)
        with progress.timed("epoch_ends"):
            if learning:
                probabilities = self._probabilities()
                entry["alpha_move"] = float((probabilities - self.last_probabilities).abs().max())
                entry["temperature"] = temperature(setup.schedule, progress.epoch)
                entry[f"derived_{setup.table.cost.name}"] = scale_widths(learner, setup.table, setup.target_ms)
                self.last_probabilities = probabilities
            choice = learned_choice(learner)
            entry["operation_entropy"], entry["depth_entropy"] = operation_entropy(choice), depth_entropy(choice)
            if progress.epoch >= self.epochs - EVALUATED_EPOCHS:
                path = sample_path(learner.parameters.log_alphas, self.noise)
                depth_weights = learner.parameters.depth_weights()
                entry["held_out_accuracy"] = path_accuracy(
                    learner.supernet, path, depth_weights, self._held_out_once(), setup.device, self.processes
                )
        with progress.timed("judging"):
            networks = self.sanity.networks
            scores = evaluate_inherited(learner.supernet, networks, probe_batches(setup), self.processes)
            entry.update(probe_entry(learner.supernet, scores, networks, choice if learning else None))
        check_agreement(learner, self.processes)
        return entry

    def conclude(self, show: Show) -> dict[str, Any]:
        """Choose the architecture and evaluate it with inherited weights; it trains nothing.

        Raises Infeasible when no architecture of the space lies in the band below the target.
        """

        def evaluating(words: str, networks: int) -> Iterator[Batch]:
            seconds = networks * self.forecast.evaluation if self.forecast else 0.0
            for batch in self._held_out_once():
                yield batch
                self._advance(show, words, seconds)

        def on_draw(new: int) -> None:
            self._advance(show, "drawing candidates", new * self.forecast.draw if self.forecast else 0.0)

        with self.progress.timed("conclusion"):
            self.architecture, numbers = choose_architecture(self.learner, self.setup, evaluating, on_draw)
            top1, supernet_top1 = evaluate_result(self.learner, self.setup, self.architecture, evaluating)
        summary = result_numbers(self.setup, learned_choice(self.learner), self.architecture)
        summary |= {"top1": top1, "supernet_top1": supernet_top1}
        return summary | sanity_numbers(self.setup, self.sanity, self.progress.history) | numbers

    def write_results(self, run_dir: RunDirectory) -> None:
        """The architecture, in both forms."""
        run_dir.write_architecture(self.architecture)

    def _held_out_once(self) -> Iterator[Batch]:
        return self.interruptible(evaluation_batches(self.setup))

    def _probabilities(self) -> Tensor:
        return self.learner.parameters.log_alphas.detach().exp().cpu()

    # ---- what is saved ----------------------------------------------------------------------------------------

    def effective_config(self) -> SearchConfig:
        """The configuration with every default of the space written out."""
        return self.setup.effective()

    def tensors(self) -> Iterable[tuple[str, Tensor]]:
        """All weights and architecture parameters."""
        return self.learner.tensors()

    def state(self) -> State:
        """The complete state needed to resume, as plain tensors, numbers and text."""
        own = {"noise": self.noise.get_state(), "last_probabilities": self.last_probabilities}
        return {**self.setup.state(), **self.learner.state(), **own}

    def compared(self, state: State) -> Iterable[tuple[str, object, object]]:
        """Data, table, space, target and schedule."""
        return self.setup.compared(state)

    def restore(self, state: State) -> None:
        """Restore `state`."""
        self.learner.restore(state)
        self.noise.set_state(state["noise"])
        self.last_probabilities = state["last_probabilities"]
        look_up(self.learner, self.setup.table)

    # ---- what a person sees -----------------------------------------------------------------------------------

    def description(self) -> list[str]:
        """What is searched, on what, for which target and where."""
        return description(self.setup, place_text(self))

    def before_training(self) -> str | None:
        """How long the run will take, measured on a batch by all processes at once, as they will compute."""
        self.progress.spend("judging", self.sanity.seconds)
        if self.progress.epoch == self.epochs:
            return None
        batch = next(iter(shared_batches(self.setup, self.setup.data.weights, turn=self.progress.epoch)))
        self.forecast = forecast(self.learner, self.setup, self.sanity, self.progress, batch)
        left = self.forecast.total - self.forecast.done(self.progress)
        return forecast_line(self.forecast, left, self.processes.world_size)

    def work(self) -> tuple[float, float | None]:
        """Milliseconds by the forecast, where steps were left to be timed."""
        if self.forecast is None:
            return 0.0, None
        return 1000 * (self.forecast.done(self.progress) + self.concluded_seconds), 1000 * self.forecast.total

    def _advance(self, show: Show, words: str, seconds: float) -> None:
        self.concluded_seconds += seconds
        show(words)

    def averages(self) -> dict[str, float]:
        """Means of the epoch so far; the architecture's only where it was trained."""
        mean, percent = self.progress.mean, self.progress.percent
        means = {"weight_loss": mean("weight_loss", "weight_steps"), "path_accuracy": percent("correct", "images")}
        if self.progress.totals.get("architecture_steps"):
            for name in ("cross_entropy", "latency_loss"):
                means[name] = mean(name, "architecture_steps")
            means[f"expected_{self.setup.table.cost.name}"] = mean("expected_cost", "architecture_steps")
        return means

    def step_text(self, averages: Mapping[str, float]) -> str:
        """Training losses and accuracies."""
        return training_numbers(averages, self.setup.table.cost)

    def epoch_text(self, entry: Mapping[str, float]) -> str:
        """An epoch's numbers."""
        return epoch_text(entry, self.setup.table.cost)

    def epoch_warnings(self) -> list[str]:
        """Collapse and stagnation, after an epoch that trained the architecture."""
        history = self.progress.history
        return health_warnings(learned_choice(self.learner), history) if "alpha_move" in history[-1] else []

    def add_histograms(self, writer: SummaryWriter, step: int) -> None:
        """Operation probabilities of every block, and depth probabilities of every stage."""
        for place, probabilities in zip(self.setup.space.blocks, self._probabilities(), strict=True):
            writer.add_histogram(f"alphas/{place.name}", probabilities, step)
        for stage, weights in enumerate(self.learner.parameters.depth_weights(), 1):
            writer.add_histogram(f"depth/stage{stage}", weights.detach().cpu(), step)

    def show_results(self, run_dir: RunDirectory, summary: Mapping[str, Any]) -> None:
        """What was found and whether to believe it."""
        show_results(run_dir, learned_choice(self.learner), self.architecture, summary, self.setup.table)

    def out_of_memory(self, how_to_resume: str) -> str:
        """What takes less."""
        return out_of_memory(self.setup, how_to_resume)


def weight_step(learner: SupernetLearner, images: Tensor, labels: Tensor, paths: Sequence[supernet.Path]) -> WeightStep:
    """Add the losses of the paths, one backward pass, clip, one SGD step on the weights.

    Raises RunFailed before the update when the loss or a gradient is not finite.
    """
    loss, correct = weight_loss(learner, images, labels, paths)
    loss.backward()  # type: ignore[no-untyped-call]
    images_of_all = len(labels)
    if learner.processes is not None:
        gradients = [weight.grad for weight in learner.weights if weight.grad is not None]
        total, sum_of_all, number = learner.processes.all_reduce_mean(
            gradients, len(labels), [loss * len(labels), correct]
        )
        loss, correct = loss.new_tensor(total / number), loss.new_tensor(sum_of_all)
        images_of_all = round(number)
    loss_of_all, correct_of_all = _clip(learner.weights, learner.schedule.grad_clip, [loss, correct], "weight")
    learner.weight_optimizer.step()
    learner.weight_optimizer.zero_grad(set_to_none=True)  # an architecture step can use the memory
    learner.end_step()
    return WeightStep(loss_of_all / len(paths), correct_of_all, images_of_all)


def architecture_step(
    learner: SupernetLearner, images: Tensor, labels: Tensor, temperature: float, generator: torch.Generator
) -> ArchitectureStep:
    """One Adam step of the architecture parameters on cross entropy + lambda * |expected latency / target - 1|.

    Raises RunFailed before the update when the loss or a gradient is not finite.
    """
    parameters = list(learner.parameters.parameters())
    loss, parts = architecture_loss(learner, images, labels, temperature, generator)
    with learner.supernet.mixture_context():
        gradients = torch.autograd.grad(loss, parameters)  # of these only: no weight gradient is computed
    if learner.processes is not None:
        count = len(labels)
        *totals, number = learner.processes.all_reduce_mean(
            gradients, count, [count * value for value in (loss, *parts)]
        )
        loss, *parts = (loss.new_tensor(total / number) for total in totals)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    _, *values = _clip(parameters, learner.schedule.grad_clip, [loss, *parts], "architecture")
    learner.architecture_optimizer.step()
    learner.parameters.renormalize()
    learner.end_step()
    return ArchitectureStep(*values)


def _clip(parameters: Iterable[Tensor], limit: float, scalars: Sequence[Tensor], what: str) -> list[float]:
    """Clip the norm of all gradients; returns the scalars, of which the loss is the first, as numbers.

    They are asked for here and together: a device that computes by itself is waited for once in a step of one process.
    """
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    norm_of_all, *values = torch.stack([norm, *(scalar.detach().to(norm) for scalar in scalars)]).tolist()
    if not math.isfinite(values[0] + norm_of_all):
        learning_rate = {"weight": "--w_lr", "architecture": "--a_lr"}[what]
        raise RunFailed(
            f"the {what} step gave loss {values[0]:g} with gradient norm {norm_of_all:g}; nothing was updated. "
            f"The usual cause is a learning rate that is too high: lower {learning_rate}"
        )
    found: list[float] = values
    return found
