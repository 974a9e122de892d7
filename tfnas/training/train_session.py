"""A training run under way: the learner and its place in the schedule, and how all of it is saved and restored.

No random state is saved: every step draws from a generator seeded by (seed, epoch, step, rank).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfnas.core.errors import InputError, RunFailed
from tfnas.data.images import derived_seed
from tfnas.nn.classification_metrics import ClassificationMetrics, evaluate_batches, evaluating
from tfnas.spaces.families import build_network
from tfnas.runs.checkpoint import Checkpoints, State, short_names
from tfnas.runs.run_settings import SETTINGS, recorded_settings
from tfnas.training.train_config import RESCUES, Recipe, learning_rate
from tfnas.training.train_setup import Setup, effective
from tfnas.training.train_steps import Learner, make_learner, train_step

KIND = "train"
STEP_STREAM = 2  # beside those of order and augmentation


def train_checkpoints(run_dir: Path) -> Checkpoints:
    """The checkpoints of a training run in its run directory."""
    return Checkpoints(run_dir, KIND)


@dataclass
class EpochTotals:
    """Sums over the steps of the epoch so far."""

    images: int = 0
    loss: float = 0.0
    correct: float = 0.0

    def averages(self) -> dict[str, float]:
        """Mean loss, and how many images were right in percent."""
        count = max(1, self.images)
        return {"train_loss": self.loss / count, "train_top1": 100 * self.correct / count}


@dataclass
class Session:
    """Where training stands: `step` steps of `epoch` are done."""

    setup: Setup
    learner: Learner
    epoch: int = 0
    step: int = 0
    totals: EpochTotals = field(default_factory=EpochTotals)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    inherited: dict[str, float] = field(default_factory=dict)
    recorded: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recorded = self.setup.recorded

    def train(self, images: Tensor, labels: Tensor, stop_asked: bool) -> bool:
        """A step on this process's share of a batch; whether any process was asked to stop."""
        setup, learner = self.setup, self.learner
        torch.manual_seed(derived_seed(setup.config.seed, STEP_STREAM, self.epoch, self.step, setup.processes.rank))
        for group in learner.optimizer.param_groups:
            group["lr"] = learning_rate(setup.recipe, self.epoch)
        labels = labels.to(setup.processes.device, non_blocking=True)
        report = train_step(learner, learner.place(images), labels, stop_asked)
        self.totals.images += setup.recipe.batch_size
        self.totals.loss += report.loss * setup.recipe.batch_size
        self.totals.correct += report.correct
        self.step += 1
        return report.stop

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> ClassificationMetrics:
        """The metrics of the evaluated network on this process's share of images, over all processes."""
        learner, processes = self.learner, self.setup.processes
        processes.broadcast(list(learner.judged.buffers()))
        placed = ((learner.place(images), labels) for images, labels in batches)
        with learner.precision.forward(), evaluating(learner.judged):
            return evaluate_batches(
                learner.judged,
                placed,
                processes.device,
                num_classes=self.setup.data.num_classes,
                all_reduce=processes.all_reduce_sum,
            )

    def finish_epoch(self, scores: ClassificationMetrics | None) -> dict[str, float]:
        """Go on to the next epoch. Returns the numbers of this one, which are kept in `history`."""
        entry = {"epoch": float(self.epoch + 1), **self.totals.averages()}
        entry["lr"] = learning_rate(self.setup.recipe, self.epoch)
        if scores is not None:
            entry |= {"top1": scores.top1, "top5": scores.top5, "loss": scores.loss}
        self.history.append(entry)
        self.epoch, self.step, self.totals = self.epoch + 1, 0, EpochTotals()
        return entry

    def spend(self, phase: str, seconds: float) -> None:
        """Account for time."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    # ---- saving and restoring ---------------------------------------------------------------------------------

    def check_finite(self) -> None:
        """Raise RunFailed unless all weights are finite: such a state must not take the place of a good one."""
        for name, value in self.learner.network.state_dict().items():
            if not torch.isfinite(value).all():
                raise RunFailed(f"{name} is no longer finite, so this state is not saved: lower --lr")

    def state(self) -> State:
        """Everything that decides how training goes on, as plain tensors, numbers and text."""
        return {
            SETTINGS: recorded_settings(effective(self.setup)),
            **self._identity(),
            **self.learner.state(),
            "totals": dataclasses.asdict(self.totals),
            "history": self.history,
            "seconds": self.seconds,
            "inherited": self.inherited,
            "recorded": self.recorded,
        }

    def restore(self, state: State) -> None:
        """Stand where `state` was taken. Raises InputError when architecture, data or recipe are not as then."""
        for name, now in self._identity().items():
            if name in state and state[name] != now:  # earlier versions kept less
                raise InputError(
                    f"the run cannot go on: its {name} was {state[name]!r} when it was saved, and is {now!r} now"
                )
        self.learner.restore(state)
        self.totals = EpochTotals(**state["totals"])
        self.history, self.seconds = list(state["history"]), dict(state["seconds"])
        self.inherited, self.recorded = dict(state["inherited"]), dict(state["recorded"])
        self.epoch, self.step = state["epoch"], state["step"]

    def _identity(self) -> State:
        """What may not change while a run goes on."""
        setup = self.setup
        return {
            "architecture": setup.architecture.to_text(),
            "data": setup.data.describe(),
            "images": setup.data.fingerprint,
            "class names": short_names(setup.data.class_names),
            "teacher": "none" if setup.teacher is None else setup.teacher.digest,
            "recipe": _lasting(setup.recipe),
        }


def start_session(setup: Setup) -> Session:
    """A run at its beginning, with weights from the configuration's seed, the same in every process."""
    recipe = setup.recipe
    torch.manual_seed(setup.config.seed)
    network = build_network(
        setup.architecture, dropout_rate=recipe.dropout_rate, drop_connect_rate=recipe.drop_connect_rate
    )
    return Session(setup, make_learner(network, setup.teacher, recipe, setup.config, setup.processes))


def _lasting(recipe: Recipe) -> dict[str, float]:
    """The part of a recipe that a resumed run may not change."""
    return {name: value for name, value in dataclasses.asdict(recipe).items() if name not in RESCUES}
