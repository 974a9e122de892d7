"""Learning rate and temperature as pure functions of the epoch (counted from 0)."""

from __future__ import annotations

import math

from tfnas.space import Schedule


def weight_learning_rate(schedule: Schedule, epoch: int) -> float:
    """Cosine decay from w_lr towards 0 over all epochs; constant within an epoch."""
    return 0.5 * schedule.w_lr * (1 + math.cos(math.pi * epoch / schedule.epochs))


def trains_architecture(schedule: Schedule, epoch: int) -> bool:
    """Whether the epoch comes after the warm-up."""
    return epoch >= schedule.warmup_epochs


def temperature(schedule: Schedule, epoch: int) -> float:
    """Gumbel-softmax temperature: T, multiplied by T_decay after each epoch that trained the architecture."""
    return schedule.T * schedule.T_decay ** max(0, epoch - schedule.warmup_epochs)
