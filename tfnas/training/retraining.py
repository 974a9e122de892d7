"""Retraining, from a configuration to a trained network in a file.

    result = retrain(TrainConfig(model_path="runs/search-20260131-120000"))

`result.run_dir` contains all files; `tfnas.load(result.run_dir)` is the network. Under torchrun every process calls
this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from tfnas.core.architecture import RUN_FILE, Architecture
from tfnas.core.errors import InputError
from tfnas.data.image_batches import EpochBatches, ImageLoader, loader
from tfnas.data.image_sets import ImageSet, derived_seed
from tfnas.nn.classification_metrics import ClassificationMetrics, evaluate_batches, evaluating
from tfnas.runs.algorithm import Algorithm, Show
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.intended import intended_for
from tfnas.runs.model_file import MODEL_FILE, TrainedModel
from tfnas.runs.run_directory import RunDirectory, State, search_checkpoints
from tfnas.runs.run_reporter import files_line, network_line, place_text, time_line
from tfnas.runs.session import ResumedRun, run_algorithm
from tfnas.spaces.families import architecture_counts, build_network, original_form
from tfnas.supernet.extract import estimate_batch_norm, extract_network, supernet_from_state
from tfnas.training.precision import in_single
from tfnas.training.train_config import KIND, RESCUES, TrainConfig, learning_rate
from tfnas.training.train_setup import TrainSetup, prepare
from tfnas.training.train_steps import STEP_STREAM, NetworkLearner, make_learner, train_step
from tfnas.utils.text import command_line, short

ESTIMATION_IMAGES = 4096
"""On so many images batch norm's statistics of inherited weights are estimated."""
ONNX_FILE = "model.onnx"
"""What `tfnas export` calls its file by default."""

Batch = tuple[Tensor, Tensor] | list[Tensor]


@dataclass(frozen=True)
class TrainResult:
    """What retraining returns: where the run's files are, and the numbers of `summary.json`."""

    run_dir: Path
    summary: dict[str, Any]


def retrain(
    config: TrainConfig,
    console: Console | None = None,
    given: Collection[str] | None = None,
    program: str = "train_eval_amp.py",
) -> TrainResult:
    """Train a network, or resume the run that `config.snapshot` names.

    `given` names the settings that were said, which go before those of the run that is named or resumed; by default
    those that differ from their defaults. `program` is the name of the one that was started.

    Raises InputError (before anything is written), RunFailed and Interrupted (state saved).
    """
    resumed, run_dir = None, None
    if config.snapshot is not None:
        from tfnas.training.train_setup import resumed_run

        config, run_dir, remark = resumed_run(config, given, program)
        resumed = ResumedRun(run_dir, remark)

    def open_training(processes: DistributedContext) -> NetworkTraining:
        return NetworkTraining(processes.barrier(lambda: prepare(config, processes, run_dir, given)))

    return TrainResult(*run_algorithm(config, open_training, console, resumed))


class NetworkTraining(Algorithm[Batch]):
    """Stochastic gradient descent on a network's weights.

    No random state is saved: every step draws from a generator seeded by (seed, epoch, step, rank).
    """

    kind = KIND
    resume_flag = "--snapshot"
    rescues = RESCUES
    lower = "--lr"

    def __init__(self, setup: TrainSetup) -> None:
        recipe, steps = setup.recipe, setup.steps_per_epoch
        super().__init__(
            setup.config, setup.processes, epochs=recipe.epochs, steps_per_epoch=steps, threads=recipe.threads
        )
        self.setup = setup
        self.true_float32 = setup.config.opt_level == "O0"
        self.learner: NetworkLearner
        self.inherited: dict[str, float] = {}
        """What the inherited weights were worth before any training."""
        self.recorded = setup.recorded

    def build(self) -> None:
        """The network, with weights from the configuration's seed, the same in every process."""
        setup, recipe = self.setup, self.setup.recipe
        torch.manual_seed(setup.config.seed)
        network = build_network(
            setup.architecture, dropout_rate=recipe.dropout_rate, drop_connect_rate=recipe.drop_connect_rate
        )
        self.learner = make_learner(network, setup.teacher, recipe, setup.config, self.processes)

    def begin(self) -> None:
        """Inherit the weights of a search, where one is named."""
        search = self.setup.config.inherit
        if search is None:
            return
        self.processes.barrier(lambda: inherit_weights(self.learner, self.setup, Path(search)))
        most = -(-ESTIMATION_IMAGES // self.setup.recipe.batch_size)
        settle_batch_norm(self.learner, zip(range(most), self._loader(self.setup.data.train, 0), strict=False))

    def before_training(self) -> str | None:
        """Once, before any training: what the inherited weights are worth."""
        if self.setup.config.inherit is None or self.inherited or (self.progress.epoch, self.progress.step) != (0, 0):
            return None
        found = self._evaluate()
        if found is None:
            return None
        self.inherited = {"top1": found.top1, "top5": found.top5, "loss": found.loss}
        return f"inherited top-1 {found.top1:.2f} %, loss {found.loss:.3f} before any training"

    def batches(self) -> Iterable[Batch]:
        """Batches of the training images."""
        return self._loader(self.setup.data.train, self.progress.step)

    def step(self, batch: Batch) -> None:
        """A step on this process's share of a batch."""
        setup, learner, progress = self.setup, self.learner, self.progress
        with progress.timed("training"):
            place = (progress.epoch, progress.step, self.processes.rank)
            torch.manual_seed(derived_seed(setup.config.seed, STEP_STREAM, *place))
            for group in learner.optimizer.param_groups:
                group["lr"] = learning_rate(setup.recipe, progress.epoch)
            labels = batch[1].to(self.processes.device, non_blocking=True)
            report = train_step(learner, learner.place(batch[0]), labels)
            size = setup.recipe.batch_size
            progress.add(images=size, loss=report.loss * size, correct=report.correct)

    def finish_epoch(self) -> dict[str, float]:
        """Evaluate the network, where there are evaluation images."""
        entry = {**self.averages(), "lr": learning_rate(self.setup.recipe, self.progress.epoch)}
        found = self._evaluate()
        return entry if found is None else entry | {"top1": found.top1, "top5": found.top5, "loss": found.loss}

    def _evaluate(self) -> ClassificationMetrics | None:
        """The metrics of the network to keep on this process's share of the evaluation images, over all processes."""
        images, learner, processes = self.setup.data.validation, self.learner, self.processes
        if images is None:
            return None
        with self.progress.timed("judging"):
            processes.broadcast(list(learner.result.buffers()))
            batches = self.interruptible(self._loader(images, None))
            placed = ((learner.place(batch[0]), batch[1]) for batch in batches)
            with learner.precision.forward(), evaluating(learner.result):
                return evaluate_batches(
                    learner.result,
                    placed,
                    processes.device,
                    num_classes=self.setup.data.num_classes,
                    all_reduce=processes.all_reduce_sum,
                )

    def _loader(self, images: ImageSet, first: int | None) -> ImageLoader:
        """Images shuffled and in whole batches, from batch `first` of the epoch on; with None all in order."""
        shuffle = first is not None
        batches = EpochBatches(
            len(images),
            batch_size=self.setup.recipe.batch_size,
            epoch=self.progress.epoch if shuffle else 0,
            seed=self.setup.config.seed if shuffle else None,
            first_batch=first or 0,
            share=self.processes.share,
            whole=shuffle,
        )
        return loader(images, batches, workers=self.setup.data.workers, device=self.processes.device)

    # ---- what is saved ----------------------------------------------------------------------------------------

    def effective_config(self) -> TrainConfig:
        """The configuration with every default written out."""
        return self.setup.effective()

    def tensors(self) -> Iterable[tuple[str, Tensor]]:
        """The network's weights and buffers."""
        return self.learner.network.state_dict().items()

    def state(self) -> State:
        """The complete state needed to resume, as plain tensors, numbers and text."""
        own = {"inherited": self.inherited, "recorded": self.recorded}
        return {**self.setup.state(), **self.learner.state(), **own}

    def compared(self, state: State) -> Iterable[tuple[str, object, object]]:
        """Architecture, data, teacher and recipe; earlier versions stored less."""
        return ((name, state[name], now) for name, now in self.setup.state().items() if name in state)

    def restore(self, state: State) -> None:
        """Restore `state`."""
        self.learner.restore(state)
        self.inherited, self.recorded = dict(state["inherited"]), dict(state["recorded"])

    # ---- the result -------------------------------------------------------------------------------------------

    def write_inputs(self, run_dir: RunDirectory) -> None:
        """The architecture."""
        run_dir.write_architecture(self.setup.architecture)

    def conclude(self, show: Show) -> dict[str, Any]:  # noqa: ARG002 - it takes no time
        """The last epoch's numbers, and what was trained on what."""
        setup, history = self.setup, self.progress.history
        counts = architecture_counts(setup.architecture)
        return {
            **{name: history[-1].get(name) for name in ("top1", "top5", "loss", "train_loss", "train_top1")},
            "best_top1": max((entry["top1"] for entry in history if "top1" in entry), default=None),
            "inherited": self.inherited or None,
            "params": counts.params,
            "macs": counts.macs,
            "architecture": setup.architecture.to_text(),
            "epochs": setup.recipe.epochs,
            "opt_level": setup.config.opt_level,
            "averaged_weights": self.learner.average is not None,
            "data": setup.data.name,
            "num_classes": setup.data.num_classes,
            "class_names": list(setup.data.class_names),
            "image_size": setup.data.preprocessing.image_size,
            **self.recorded,
        }

    def write_results(self, run_dir: RunDirectory) -> None:
        """`model.pt`."""
        setup = self.setup
        TrainedModel(
            architecture=setup.architecture,
            state={name: in_single(value) for name, value in self.learner.result.state_dict().items()},
            class_names=setup.data.class_names,
            preprocessing=setup.data.preprocessing,
            data=setup.data.name,
        ).save(run_dir.path / MODEL_FILE)

    # ---- what a person sees -----------------------------------------------------------------------------------

    def description(self) -> list[str]:
        """What is trained, on what and how."""
        setup, recipe, config = self.setup, self.setup.recipe, self.setup.config
        counts = architecture_counts(setup.architecture)
        notes = setup.notes
        if setup.data.validation is None:
            notes = ("there are no evaluation images: name some with --val_root and --val_list", *notes)
        return [
            f"data      {setup.data.describe()}",
            f"network   {short(counts.params)} parameters, {short(counts.macs)} MACs, "
            + (f"weights of {config.inherit}" if config.inherit else f"random weights, seed {config.seed}"),
            f"train     {recipe.epochs} epochs of {setup.steps_per_epoch} steps, batch {recipe.batch_size}, "
            f"lr {recipe.lr:g}, {config.opt_level} on {place_text(self)}",
            *(f"warning: {note}" for note in notes),
        ]

    def averages(self) -> dict[str, float]:
        """Mean loss, and how many images were right in percent."""
        progress = self.progress
        return {"train_loss": progress.mean("loss", "images"), "train_top1": progress.percent("correct", "images")}

    def step_text(self, averages: Mapping[str, float]) -> str:
        """Training loss and accuracy."""
        return f"loss {averages['train_loss']:.3f}  top-1 {averages['train_top1']:.1f} %"

    def epoch_text(self, entry: Mapping[str, float]) -> str:
        """Training loss and accuracy, and those on the evaluation images."""
        tested = f"  |  test: loss {entry['loss']:.3f}  top-1 {entry['top1']:.2f} %" if "top1" in entry else ""
        return self.step_text(entry) + tested

    def show_results(self, run_dir: RunDirectory, summary: Mapping[str, Any]) -> None:
        """What was trained, and what to do next."""
        made = intended_for(run_dir.path, summary["architecture"])
        certify = command_line("latency certify", run_dir.path / ONNX_FILE) + (f" {made.flags}" if made else "")
        form = original_form(self.setup.architecture)
        forms = [RUN_FILE] if form is None else [RUN_FILE, form[0]]
        tested = "no evaluation images"
        if summary["top1"] is not None:
            tested = f"top-1 {summary['top1']:.2f} %, top-5 {summary['top5']:.2f} %, loss {summary['loss']:.4f}"
        for line in (
            "",
            f"tested    {tested} (weights of the last epoch; the best epoch is not selected on these images)",
            network_line(summary),
            time_line(summary),
            files_line(run_dir, MODEL_FILE, *forms),
            f"next      {command_line('test', '--model_path', run_dir.path)}",
            f"          {command_line('export', '--model_path', run_dir.path)}",
            f"          {certify}",
        ):
            run_dir.say(line)

    def out_of_memory(self, how_to_resume: str) -> str:  # noqa: ARG002 - a resumed run needs as much
        """What takes less."""
        size, pieces = self.setup.recipe.batch_size, 2 * self.setup.config.accumulate
        return (
            f"out of memory at batch size {size} over {self.processes.world_size} process(es). The last saved state is "
            f"intact. The batch size of a run cannot change: start a new one with --accumulate {pieces} "
            f"(the same batch in smaller pieces), --batch_size {size // 2}, or a smaller --image_size"
        )


def inherit_weights(learner: NetworkLearner, setup: TrainSetup, run_dir: Path) -> None:
    """Give the network the weights of a search, the supernet's active channels; batch norm has no statistics then.

    Raises InputError when there is no search in the directory, or its space or classes do not fit the network.
    """
    state, _, _ = search_checkpoints(run_dir).load_latest()
    if state["num_classes"] != setup.data.num_classes:
        raise InputError(
            f"--inherit {run_dir}: the search had {state['num_classes']} classes, the data has "
            f"{setup.data.num_classes}: its weights cannot be inherited"
        )
    if not isinstance(setup.architecture, Architecture):
        raise InputError(f"--inherit {run_dir}: the architecture is not of that search's space, but a structure")
    try:
        found = extract_network(supernet_from_state(state), setup.architecture)
    except InputError as error:
        raise InputError(f"--inherit {run_dir}: the architecture is not of that search's space: {error}") from error
    learner.network.load_state_dict(found.state_dict())


def settle_batch_norm(learner: NetworkLearner, batches: Iterable[tuple[int, Batch]]) -> None:
    """Give batch norm the statistics of numbered training batches, and the average of weights the network's state.

    With joint statistics the processes exchange in every batch norm, as in a step of training.
    """
    network, images = learner.network, (learner.place(batch[0]) for _, batch in batches)
    with torch.random.fork_rng(devices=[]):
        estimate_batch_norm(network, images)
    if learner.average is not None:
        learner.average.module.load_state_dict(network.state_dict())
