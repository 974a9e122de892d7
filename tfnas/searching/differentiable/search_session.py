"""A search under way: the learner, its noise and its place in the schedule, and how all of it is saved and restored."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tfnas.core.choice import Choice
from tfnas.core.errors import InputError, RunFailed
from tfnas.runs.checkpoint import State
from tfnas.runs.resumption import SETTINGS, recorded_settings, short_names
from tfnas.runs.search_run import space_of
from tfnas.searching.differentiable.architecture_parameters import (
    ArchitectureParameters,
    sample_path,
    sample_paths,
    temperature,
    trains_architecture,
    weight_learning_rate,
)
from tfnas.searching.differentiable.derive import accuracy, choice_of, look_up, scale_widths
from tfnas.searching.differentiable.health import depth_entropy, operation_entropy
from tfnas.searching.differentiable.sanity_networks import Probes, evaluate_inherited, probe_entry
from tfnas.searching.differentiable.schedule import Schedule
from tfnas.searching.differentiable.search_batches import probe_batches
from tfnas.searching.differentiable.search_config import RESCUES
from tfnas.searching.differentiable.search_setup import Setup, effective
from tfnas.searching.differentiable.search_steps import (
    ArchitectureStep,
    Learner,
    WeightStep,
    architecture_step,
    make_learner,
    weight_step,
)
from tfnas.supernet.routes import Path
from tfnas.supernet.supernet import Supernet, share_weights

JUDGED_EPOCHS = 4  # the last epochs, in which a sampled path is judged on the held-out part


@dataclass
class EpochTotals:
    """Sums over the steps of the epoch so far, from which its averages come."""

    images: int = 0
    weight_steps: int = 0
    weight_loss: float = 0.0
    correct: float = 0.0
    architecture_steps: int = 0
    cross_entropy: float = 0.0
    latency_loss: float = 0.0
    expected_cost: float = 0.0

    def add_weight_step(self, report: WeightStep) -> None:
        """Count a weight step."""
        self.images += report.images
        self.weight_steps += 1
        self.weight_loss += report.loss
        self.correct += report.correct

    def add_architecture_step(self, report: ArchitectureStep) -> None:
        """Count an architecture step."""
        self.architecture_steps += 1
        self.cross_entropy += report.cross_entropy
        self.latency_loss += report.latency_loss
        self.expected_cost += report.expected_ms

    def averages(self, cost: str) -> dict[str, float]:
        """Means by name (`cost` is what the target is of); the architecture's only where it was trained."""
        means = {
            "weight_loss": self.weight_loss / max(1, self.weight_steps),
            "path_accuracy": 100 * self.correct / max(1, self.images),
        }
        if self.architecture_steps:
            means["cross_entropy"] = self.cross_entropy / self.architecture_steps
            means["latency_loss"] = self.latency_loss / self.architecture_steps
            means[f"expected_{cost}"] = self.expected_cost / self.architecture_steps
        return means


@dataclass
class Session:
    """Where a search stands: `step` weight steps of `epoch` are done."""

    setup: Setup
    learner: Learner
    noise: torch.Generator
    epoch: int = 0
    step: int = 0
    totals: EpochTotals = field(default_factory=EpochTotals)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    last_probabilities: Tensor = field(default_factory=lambda: torch.empty(0))
    probes: Probes | None = None
    """What to judge after every epoch; not saved, as the seed gives them again."""

    def __post_init__(self) -> None:
        self.last_probabilities = self.learner.parameters.log_alphas.detach().exp().cpu()

    # ---- one step ---------------------------------------------------------------------------------------------

    def train_weights(self, images: Tensor, labels: Tensor) -> None:
        """A weight step: path 1, and after the warm-up path 2, on a batch of the weight part."""
        paths = self.paths(2 if trains_architecture(self.setup.schedule, self.epoch) else 1, self.noise)
        for group in self.learner.weight_optimizer.param_groups:
            group["lr"] = weight_learning_rate(self.setup.schedule, self.epoch)
        report = weight_step(self.learner, *self.place(images, labels), paths)
        self.totals.add_weight_step(report)

    def paths(self, number: int, noise: torch.Generator) -> list[Path]:
        """The paths of a weight step: one or two."""
        depth_choices = self.setup.space.depth_choices if self.setup.schedule.sampled_depth else None
        return sample_paths(self.learner.parameters.log_alphas, number, noise, depth_choices)

    def train_architecture(self, images: Tensor, labels: Tensor) -> None:
        """An architecture step on a batch of the held-out part."""
        heat = temperature(self.setup.schedule, self.epoch)
        report = architecture_step(self.learner, *self.place(images, labels), heat, self.noise)
        self.totals.add_architecture_step(report)

    def place(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Put a batch where the supernet is, in the layout it computes in."""
        device = self.setup.device
        placed = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        return placed, labels.to(device, non_blocking=True)

    def spend(self, phase: str, seconds: float) -> None:
        """Account for time."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    # ---- the end of an epoch ----------------------------------------------------------------------------------

    def finish_epoch(self, held_out: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Scale widths if the architecture was trained, evaluate_inherited, and go on to the next epoch.

        What is judged is the probe networks and, in the last epochs, a sampled path too, which sees all of `held_out`.

        Returns the epoch's numbers, which are kept in `history`.
        """
        setup, learner = self.setup, self.learner
        start = time.perf_counter()
        cost = setup.table.cost.name
        entry = {"epoch": float(self.epoch + 1), **self.totals.averages(cost)}
        if trains_architecture(setup.schedule, self.epoch):
            probabilities = learner.parameters.log_alphas.detach().exp().cpu()
            entry["alpha_move"] = float((probabilities - self.last_probabilities).abs().max())
            entry["temperature"] = temperature(setup.schedule, self.epoch)
            entry[f"derived_{cost}"] = scale_widths(learner, setup.table, setup.target_ms)
            self.last_probabilities = probabilities
        choice = choice_of(learner)
        entry["operation_entropy"], entry["depth_entropy"] = operation_entropy(choice), depth_entropy(choice)
        if self.epoch >= setup.schedule.epochs - JUDGED_EPOCHS:
            path = sample_path(learner.parameters.log_alphas, self.noise)
            depth_weights = learner.parameters.depth_weights()
            entry["held_out_accuracy"] = accuracy(
                learner.supernet, path, depth_weights, held_out, setup.device, setup.processes
            )
        self.spend("epoch_ends", time.perf_counter() - start)
        entry.update(self._judge_probes(choice))
        self.history.append(entry)
        self.epoch, self.step, self.totals = self.epoch + 1, 0, EpochTotals()
        return entry

    def _judge_probes(self, choice: Choice) -> dict[str, float]:
        """What the supernet is worth to the probe networks on a few held-out batches, as entries of the epoch."""
        setup, supernet, start = self.setup, self.learner.supernet, time.perf_counter()
        if self.probes is None:
            return {}
        judged = evaluate_inherited(supernet, self.probes.networks, probe_batches(setup), setup.processes)
        trained = choice if trains_architecture(setup.schedule, self.epoch) else None
        entry = probe_entry(supernet, judged, self.probes.networks, trained)
        self.spend("judging", time.perf_counter() - start)
        return entry

    # ---- saving and restoring ---------------------------------------------------------------------------------

    def check_finite(self) -> None:
        """Raise RunFailed unless all parameters are finite: such a state must not take the place of a good one."""
        for owner in (self.learner.supernet, self.learner.parameters):
            for name, parameter in owner.named_parameters():
                if not torch.isfinite(parameter).all():
                    raise RunFailed(f"{name} is no longer finite, so this state is not saved: lower --w_lr or --a_lr")

    def state(self) -> State:
        """Everything that decides how the search goes on, as plain tensors, numbers and text."""
        learner, setup = self.learner, self.setup
        return {
            SETTINGS: recorded_settings(effective(setup)),
            "space": setup.space.to_json(),
            "num_classes": setup.data.num_classes,
            "data": setup.data.describe(),
            "class_names": short_names(setup.data.class_names),
            "data_fingerprint": setup.data.fingerprint,
            "schedule": _lasting(setup.schedule),
            "table_fingerprint": setup.table.fingerprint,
            "lookup_path": setup.lookup_path,
            "cost": setup.table.cost.name,
            setup.table.cost.target_key: setup.target_ms,
            "supernet": learner.supernet.state_dict(),
            "active": learner.supernet.active_channels(),
            "parameters": learner.parameters.state_dict(),
            "weight_optimizer": learner.weight_optimizer.state_dict(),
            "architecture_optimizer": learner.architecture_optimizer.state_dict(),
            "noise": self.noise.get_state(),
            "last_probabilities": self.last_probabilities,
            "totals": dataclasses.asdict(self.totals),
            "history": self.history,
            "seconds": self.seconds,
        }

    def restore(self, state: State) -> None:
        """Stand where `state` was taken. Raises InputError when data, table or space are not the same as then."""
        setup, learner = self.setup, self.learner
        cost, class_names = setup.table.cost, short_names(setup.data.class_names)
        same = (
            ("cost", state.get("cost", "ms"), cost.name),
            ("data", state["data"], setup.data.describe()),
            ("set of images", state["data_fingerprint"], setup.data.fingerprint),
            ("class names", state.get("class_names", class_names), class_names),  # earlier versions kept none
            ("table", state["table_fingerprint"], setup.table.fingerprint),
            ("space", space_of(state).fingerprint, setup.space.fingerprint),
            ("target", state.get(cost.target_key), setup.target_ms),
            ("schedule", _lasting(Schedule()) | state["schedule"], _lasting(setup.schedule)),  # older runs lack some
        )
        for name, then, now in same:
            if then != now:
                raise InputError(f"the run cannot go on: its {name} was {then!r} when it was saved, and is {now!r} now")
        learner.supernet.load_state_dict(state["supernet"])
        learner.supernet.set_active_channels(state["active"])
        learner.parameters.load_state_dict(state["parameters"])
        learner.weight_optimizer.load_state_dict(state["weight_optimizer"])
        learner.architecture_optimizer.load_state_dict(state["architecture_optimizer"])
        for group in learner.architecture_optimizer.param_groups:
            group["lr"] = setup.schedule.a_lr
        self.noise.set_state(state["noise"])
        self.last_probabilities = state["last_probabilities"]
        self.totals = EpochTotals(**state["totals"])
        self.history, self.seconds = list(state["history"]), dict(state["seconds"])
        self.epoch, self.step = state["epoch"], state["step"]
        look_up(learner, setup.table)


def start_session(setup: Setup) -> Session:
    """A search at its beginning, with weights from the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(setup.config.seed)
        supernet = Supernet(setup.space, setup.data.num_classes, setup.config.low_memory)
        supernet = supernet.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if setup.schedule.shared_weights:
            share_weights(supernet)
    parameters = ArchitectureParameters(setup.space).to(setup.device)
    learner = make_learner(supernet, parameters, setup.schedule, setup.table, setup.target_ms)
    learner.amp = setup.config.amp
    if setup.processes.world_size > 1:
        learner.processes = setup.processes
        setup.processes.broadcast([parameter.data for parameter in (*supernet.parameters(), *parameters.parameters())])
    look_up(learner, setup.table)
    return Session(setup, learner, torch.Generator().manual_seed(setup.config.seed))


def _lasting(schedule: Schedule) -> dict[str, float]:
    """The part of a schedule that a resumed run may not change."""
    return {name: value for name, value in dataclasses.asdict(schedule).items() if name not in RESCUES}
