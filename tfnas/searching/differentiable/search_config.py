"""The settings of a differentiable search: one typed definition for Python, command line and YAML file.

`Schedule` says how long and how fast a space is searched; a space's file gives its own defaults.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from tfnas.core.cost import COSTS, COUNTED
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.data.data_config import DataConfig
from tfnas.runs.run_settings import RunSettings
from tfnas.spaces.mbconv.space_file import expect_type, known_fields
from tfnas.utils.devices import check_thread_limit

DEFAULT_TARGET_MS = 15.0
_TARGETS = {"macs": "300e6", "params": "5e6"}
_KINDS = {"int": int, "float": float, "bool": bool}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The names and values of the paper, section 4.1. `threads` is the number of CPU threads, 0 for all."""

    epochs: int = 90
    warmup_epochs: int = 10
    batch_size: int = 32
    w_lr: float = 0.025
    w_mom: float = 0.9
    w_wd: float = 1e-5
    a_lr: float = 0.01
    a_wd: float = 5e-4
    a_beta1: float = 0.5
    a_beta2: float = 0.999
    grad_clip: float = 5.0
    T: float = 5.0
    T_decay: float = 0.96
    lambda_lat: float = 0.1
    shared_weights: bool = False
    sampled_depth: bool = False
    candidates: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if not math.isfinite(getattr(self, item.name)):
                raise InputError(f"{item.name} must be a finite number, got {getattr(self, item.name)}")
        for name in ("epochs", "batch_size", "candidates", "w_lr", "a_lr", "grad_clip", "T", "T_decay"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("threads", "warmup_epochs", "w_mom", "w_wd", "a_wd", "a_beta1", "a_beta2", "lambda_lat"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        check_thread_limit(self.threads)
        for name in ("w_mom", "a_beta1", "a_beta2"):
            if not getattr(self, name) < 1:
                raise InputError(f"{name} must be below 1, got {getattr(self, name)}")
        if self.T_decay > 1:
            raise InputError(f"T_decay must be at most 1 (the temperature falls), got {self.T_decay}")
        if self.warmup_epochs >= self.epochs:
            raise InputError(
                f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs}): "
                "the architecture is trained only after the warm-up. "
                f"Give --warmup_epochs too, for instance {self.epochs // 3}"
            )


OWN_TO_A_SPACE = ("epochs", "warmup_epochs", "batch_size", "threads")
"""The fields of a Schedule that belong to data and machine; the others are procedure, with the paper's as default."""


def space_schedule(space: SearchSpace, source: str | None = None) -> Schedule:
    """The schedule that a space's file gives, completed with the paper's values.

    Raises InputError naming the space (`source` is what messages call it) and the field that is wrong.
    """
    where = source or f"space {space.name}"
    try:
        fields = known_fields(space.schedule, Schedule, "schedule.")
        for item in dataclasses.fields(Schedule):
            if item.name in fields:
                fields[item.name] = expect_type(fields[item.name], _KINDS[str(item.type)], f"schedule.{item.name}")
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    try:
        return Schedule(**fields)
    except InputError as error:
        raise InputError(f"{where}: schedule: {error}") from error


def papers_schedule(own: Schedule) -> Schedule:
    """The paper's procedure for as many epochs and images as a space has: all defaults of Schedule but those."""
    return Schedule(**{name: getattr(own, name) for name in OWN_TO_A_SPACE})


@dataclass(frozen=True, kw_only=True)
class SearchConfig(RunSettings, DataConfig):
    """Settings of a search. Fields that are None take the search space's own value."""

    target_lat: float = DEFAULT_TARGET_MS
    """Target, also spelled --target: milliseconds per batch, as the latency table was measured; or a number of what
    --cost counts."""
    cost: Literal["ms", "macs", "params"] | None = None
    """What the target is: milliseconds of a latency table, or multiply-accumulates or parameters of the network, which
    are counted and need no table. Default: what the table holds, ms."""
    lookup_path: str | None = None
    """Latency table: our JSON or the authors' .pkl. Default: the table shipped for the space."""
    space: str | None = None
    """Search space: imagenet, cifar, digits, or a YAML file of your own. Default: the one for the data set."""
    width_multiple: int | None = None
    """Search only widths that are a multiple of this, such as 8, on which some devices are faster. Default: the space's
    own, 1."""
    resume: str | None = None
    """Resume the interrupted run in this run directory, with its own settings."""
    seed: int = 2
    """Seed of initial weights, image order, augmentation and sampling."""
    device: str = "auto"
    """auto (the first GPU if there is one; with several processes, one each), cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of each process, 0 for all cores. Results are bit-equal only at the same number."""
    low_memory: bool = False
    """Save no feature maps inside operations; recompute them in the backward pass. Less memory, more time, the same
    losses and gradients."""
    amp: bool = False
    """On a GPU: compute losses in mixed precision (bfloat16), weights and updates in float32."""
    recipe: Literal["paper"] | None = None
    """paper: use the TF-NAS paper's values for all settings of the two schedules below, instead of the space's.
    --epochs, --warmup_epochs, --batch_size and --threads remain the space's. Individual flags take precedence. Default:
    the space's own procedure."""
    epochs: int | None = None
    """Epochs over the weight-training images."""
    warmup_epochs: int | None = None
    """Number of initial epochs that train only weights."""
    batch_size: int | None = None
    """Images per step over all processes, for weights and architecture alike."""
    w_lr: float | None = None
    """Learning rate of the weights (SGD), decayed to 0 by a cosine over all epochs."""
    w_mom: float | None = None
    """Momentum of the weights."""
    w_wd: float | None = None
    """Weight decay of the weights."""
    a_lr: float | None = None
    """Learning rate of the architecture parameters (Adam)."""
    a_wd: float | None = None
    """Weight decay of the architecture parameters."""
    a_beta1: float | None = None
    """First Adam coefficient of the architecture parameters."""
    a_beta2: float | None = None
    """Second Adam coefficient of the architecture parameters."""
    grad_clip: float | None = None
    """Maximum gradient norm, of weights and of architecture parameters."""
    T: float | None = None
    """Initial temperature of the Gumbel-softmax."""
    T_decay: float | None = None
    """Factor on the temperature after each epoch that trained the architecture."""
    lambda_lat: float | None = None
    """Weight of the latency term while searching. The target is met for every value: there is nothing to tune."""
    shared_weights: bool | None = None
    """The operations of a block share weights: narrower ones are slices of the widest, smaller kernels the centre of
    the largest. Sampled paths train several times faster."""
    sampled_depth: bool | None = None
    """Train weights on paths with a uniformly sampled depth per stage, like derived networks, instead of the sink,
    which averages over all depths. Architecture parameters are trained at the sinks in either case."""
    candidates: int | None = None
    """Number of networks, sampled from the learned distribution and fitted to the target, that are evaluated at the end
    with inherited weights on the held-out part; the one with the lowest loss is the result. 1: the derived one, without
    evaluation."""

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        DataConfig.__post_init__(self)
        words = COSTS[self.cost or "ms"].target_words
        if not (math.isfinite(self.target_lat) and self.target_lat > 0):
            raise InputError(f"target_lat must be a positive number of {words}, got {self.target_lat}")
        if self.cost in COUNTED and self.target_lat == DEFAULT_TARGET_MS:
            raise InputError(f"--cost {self.cost} needs a --target, a number of {words}, such as {_TARGETS[self.cost]}")
        if self.width_multiple is not None and self.width_multiple < 1:
            raise InputError(f"width_multiple must be 1 or more, got {self.width_multiple}")
        if self.run_dir is not None and self.resume is not None:
            raise InputError("give --run_dir for a new run or --resume for an interrupted one, not both")

    def schedule(self, of_space: Schedule) -> Schedule:
        """The recipe's or the space's schedule with the values given here in place.

        Raises InputError for values that do not fit.
        """
        if self.recipe == "paper":
            of_space = papers_schedule(of_space)
        names = [field.name for field in dataclasses.fields(Schedule)]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(of_space, **given)
