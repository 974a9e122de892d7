"""What a differentiable search trains: supernet and architecture parameters with their optimizers, and their losses.

The losses of the two steps of TF-NAS (algorithm 1); the architecture that is preferred so far, and elasticity scaling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfnas.core.choice import Choice
from tfnas.core.errors import RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.widths import fit_widths
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import State, choice_from
from tfnas.searching.differentiable.architecture_parameters import (
    ArchitectureParameters,
    expected_ms,
    operations_ms,
    sample_mixture_weights,
    sample_paths,
)
from tfnas.searching.differentiable.optimizers import Adam, ElasticSGD
from tfnas.searching.differentiable.search_config import Schedule
from tfnas.searching.differentiable.search_setup import SearchSetup
from tfnas.supernet.elastic import cpu_kernels
from tfnas.supernet.supernet import Mixture, Path, Supernet, share_weights
from tfnas.utils.devices import give_back_freed_memory


class WeightStep(NamedTuple):
    """Of a weight step: the loss (mean over its paths), how many images each got right, averaged, and of how many."""

    loss: float
    correct: float
    images: int


class ArchitectureStep(NamedTuple):
    """Of an architecture step: cross entropy, latency term (before lambda), expected latency in the table's unit."""

    cross_entropy: float
    latency_loss: float
    expected_ms: float


@dataclass
class SupernetLearner:
    """Supernet and architecture parameters with their optimizers, and the latencies they are trained against."""

    supernet: Supernet
    parameters: ArchitectureParameters
    weight_optimizer: ElasticSGD
    architecture_optimizer: Adam
    schedule: Schedule
    target_ms: float
    base_ms: float
    table_ms: Tensor
    processes: DistributedContext | None = None
    """With which others it learns, each on its share of every batch; None: alone."""
    amp: bool = False
    """Whether forward passes compute in mixed precision (bfloat16, which needs no scaling of the loss)."""

    @property
    def weights(self) -> list[Tensor]:
        """All that a weight step may change, in the supernet's order; going through its modules takes longer."""
        params: list[Tensor] = self.weight_optimizer.param_groups[0]["params"]
        return params

    def autocast(self) -> AbstractContextManager[Any]:
        """For forward passes."""
        return torch.autocast(self.supernet.device.type, torch.bfloat16) if self.amp else nullcontext()

    def end_step(self) -> None:
        """Where memory is low, let others and the next step, which asks for pieces of other sizes, have it."""
        if self.supernet.low_memory and self.supernet.device.type == "cpu":
            give_back_freed_memory()

    def place(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Put a batch where the supernet is, in the layout it computes in."""
        device = self.supernet.device
        placed = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        return placed, labels.to(device, non_blocking=True)

    def sample_paths(self, number: int, noise: torch.Generator) -> list[Path]:
        """The paths of a weight step: one or two."""
        depth_choices = self.supernet.space.depth_choices if self.schedule.sampled_depth else None
        return sample_paths(self.parameters.log_alphas, number, noise, depth_choices)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All weights and architecture parameters, by name."""
        yield from self.supernet.named_parameters()
        yield from self.parameters.named_parameters()

    def state(self) -> State:
        """What a checkpoint stores of it."""
        return {
            "supernet": self.supernet.state_dict(),
            "active": self.supernet.active_channels(),
            "parameters": self.parameters.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "architecture_optimizer": self.architecture_optimizer.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Restore `state`, with the schedule's learning rate; the caller looks up the latencies again."""
        self.supernet.load_state_dict(state["supernet"])
        self.supernet.set_active_channels(state["active"])
        self.parameters.load_state_dict(state["parameters"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.architecture_optimizer.load_state_dict(state["architecture_optimizer"])
        for group in self.architecture_optimizer.param_groups:
            group["lr"] = self.schedule.a_lr


def build_learner(setup: SearchSetup) -> SupernetLearner:
    """A learner at its beginning, with weights from the configuration's seed, the same in all processes."""
    config, processes = setup.config, setup.processes
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        supernet = Supernet(setup.space, setup.data.num_classes, config.low_memory)
        supernet = supernet.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if setup.schedule.shared_weights:
            share_weights(supernet)
    parameters = ArchitectureParameters(setup.space).to(setup.device)
    learner = make_learner(supernet, parameters, setup.schedule, setup.table, setup.target_ms)
    learner.amp = config.amp
    if processes.world_size > 1:
        learner.processes = processes
        processes.broadcast([parameter.data for parameter in (*supernet.parameters(), *parameters.parameters())])
    look_up(learner, setup.table)
    return learner


def make_learner(
    supernet: Supernet, parameters: ArchitectureParameters, schedule: Schedule, table: LatencyTable, target_ms: float
) -> SupernetLearner:
    """Optimizers with the schedule's settings; the caller sets `table_ms` whenever widths change."""
    weights = list(supernet.parameters())
    check_partition(weights, list(parameters.parameters()), nn.ModuleList([supernet, parameters]))
    sgd = ElasticSGD(
        weights,
        partial(supernet.active_slices, with_grad=True),
        lr=schedule.w_lr,
        momentum=schedule.w_mom,
        weight_decay=schedule.w_wd,
    )
    adam = Adam(
        parameters.parameters(),
        lr=schedule.a_lr,
        betas=(schedule.a_beta1, schedule.a_beta2),
        weight_decay=schedule.a_wd,
    )
    empty, num_classes = torch.empty(0), supernet.classifier.linear.out_features
    return SupernetLearner(supernet, parameters, sgd, adam, schedule, target_ms, table.base_ms(num_classes), empty)


def check_partition(weights: Sequence[Tensor], architecture: Sequence[Tensor], model: nn.Module) -> None:
    """Assert that every parameter of the model is in exactly one of the two lists."""
    listed = [id(parameter) for parameter in (*weights, *architecture)]
    assert len(set(listed)) == len(listed), "a parameter is both a weight and an architecture parameter"
    assert set(listed) == {id(parameter) for parameter in model.parameters()}, "a parameter belongs to no optimizer"


def weight_loss(
    learner: SupernetLearner, images: Tensor, labels: Tensor, paths: Sequence[Path]
) -> tuple[Tensor, Tensor]:
    """The sum of the paths' cross entropies, and the number of images got right, averaged over the paths (scalars)."""
    depth_weights = [weights.detach() for weights in learner.parameters.depth_weights()]
    supernet = learner.supernet
    with learner.autocast():
        features = supernet.stem(images)
    hits: list[Tensor] = []

    def path_loss(path: Path, features: Tensor) -> Tensor:
        with learner.autocast():
            logits = supernet.along(path, features, depth_weights)
        hits.append((logits.detach().argmax(1) == labels).sum())
        return functional.cross_entropy(logits.float() if learner.amp else logits, labels)

    functions = [partial(path_loss, path) for path in paths]
    losses = path_losses(functions, features, learner.weights, supernet.low_memory)
    return torch.stack(losses).sum(), torch.stack(hits).sum() / len(paths)


def architecture_loss(
    learner: SupernetLearner, images: Tensor, labels: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """The loss of an architecture step, and its parts in the order of `ArchitectureStep` (scalars).

    One Gumbel-softmax sample weighs outputs and latencies alike.
    """
    weights = sample_mixture_weights(learner.parameters.log_alphas, temperature, generator)
    depth_weights = learner.parameters.depth_weights()
    with learner.autocast():
        with torch.no_grad():  # the stems precede all choices
            features = learner.supernet.stem(images)
        with learner.supernet.mixture_context():
            logits = learner.supernet.along(Mixture(weights), features, depth_weights)
    logits = logits.float() if learner.amp else logits
    cross_entropy = functional.cross_entropy(logits, labels)
    space, table_ms = learner.supernet.space, learner.table_ms.to(weights)
    expected = expected_ms(space, table_ms, learner.base_ms, weights, depth_weights)
    latency_loss = (expected / learner.target_ms - 1).abs()
    loss = cross_entropy + learner.schedule.lambda_lat * latency_loss
    return loss, [cross_entropy.detach(), latency_loss.detach(), expected.detach()]


def learned_choice(learner: SupernetLearner) -> Choice:
    """What has been learned so far, for deriving and for meeting the target."""
    supernet = learner.supernet
    num_classes = supernet.classifier.linear.out_features
    return choice_from(supernet.space, num_classes, learner.parameters.state_dict(), supernet.widths())


def scale_widths(learner: SupernetLearner, table: LatencyTable, target_ms: float) -> float:
    """Elasticity scaling: fit the derived architecture's widths and make them the supernet's.

    Returns the derived architecture's table latency in ms after the fit. Momentum of all channels is kept.
    """
    choice = learned_choice(learner)
    fitted = fit_widths(choice.derived(), table, target_ms)
    learner.supernet.set_widths(choice.best_operations, fitted)
    look_up(learner, table)
    return table.architecture_ms(fitted)


def look_up(learner: SupernetLearner, table: LatencyTable) -> None:
    """Bring the learner's table latencies up to the supernet's current widths."""
    found = operations_ms(learner.supernet.space, table, learner.supernet.widths())
    learner.table_ms = found.to(learner.parameters.log_alphas)


def check_agreement(learner: SupernetLearner, processes: DistributedContext) -> None:
    """Raise RunFailed in a process whose learner is not, bit for bit, that of rank 0."""
    if processes.world_size == 1:
        return
    own = fingerprints(learner)
    first: dict[str, str] = json.loads(processes.from_rank_zero(lambda: json.dumps(own)))

    def compare() -> None:
        differing = [name for name in own if own[name] != first.get(name)]
        if differing:
            raise RunFailed(
                f"its {' and '.join(differing)} differ from those of rank 0, so the two would derive "
                "different architectures: processors or versions of PyTorch that round differently are the usual "
                "cause. Use identical machines"
            )

    processes.barrier(compare)


def fingerprints(learner: SupernetLearner) -> dict[str, str]:
    """Digests, by name, of everything that decides which architecture is derived."""
    alphas, *betas = learner.parameters.parameters()
    return {
        "operation probabilities (alphas)": _digest([alphas]),
        "depth probabilities (betas)": _digest(betas),
        "widths": _digest(active for row in learner.supernet.active_channels() for active in row),
        "weights": _digest(learner.supernet.parameters()),
    }


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(b"|")
    return digest.hexdigest()


# ---- losses of paths ---------------------------------------------------------------------------------------------

LossFunction = Callable[[Tensor], Tensor]


def path_losses(
    functions: Sequence[LossFunction], features: Tensor, parameters: Sequence[Tensor], low_memory: bool
) -> list[Tensor]:
    """The scalar that each function gives for the features, differentiable.

    Gradients go to the features and to those `parameters`, all of them leaves, that a function uses. With `low_memory`
    gradients of one are computed before the next function is called; a CPU computes them in parallel; elsewhere, where
    one thread keeps the device busy, all are one graph.
    """
    kernels = cpu_kernels(features.device)
    if kernels is None and not low_memory:
        return [function(features) for function in functions]
    mapped = _map if kernels is None or low_memory else kernels.parallel_map
    return list(_Losses.apply(mapped, functions, features, *parameters))


def _map(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


class _Losses(torch.autograd.Function):
    """Computes gradients in the forward pass: every function has a graph of its own, which is gone after it."""

    @staticmethod
    def forward(ctx: Any, mapped: Any, functions: Sequence[LossFunction], features: Tensor, *parameters: Tensor) -> Any:
        found = mapped(partial(_loss_and_gradients, features, parameters), functions)
        ctx.gradients = [gradients for _, gradients in found]
        return tuple(loss for loss, _ in found)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        factors, gradients, ctx.gradients = [output.item() for output in outputs], ctx.gradients, None

        def total(parts: Sequence[Tensor | None]) -> Tensor | None:
            scaled = [
                part if factor == 1 else part * factor
                for factor, part in zip(factors, parts, strict=True)
                if part is not None
            ]
            return sum(scaled[1:], scaled[0]) if scaled else None

        return None, None, *map(total, zip(*gradients, strict=True))


def _loss_and_gradients(
    features: Tensor, parameters: Sequence[Tensor], function: LossFunction
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Of a leaf in place of the features; None for the parameters that the function does not use."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        loss = function(leaf)
    return loss.detach(), torch.autograd.grad(loss, (leaf, *parameters), allow_unused=True)
