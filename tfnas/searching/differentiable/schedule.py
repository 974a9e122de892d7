"""How long and how fast a space is searched: the settings of the differentiable search, with a space's own defaults."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.spaces.mbconv.space_file import expect_type, known_fields

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
