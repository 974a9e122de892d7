"""Which scores foretell the accuracy of trained candidates here, inside the band, where all cost the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tfnas.utils.statistics import Tau

MACS = "macs"


@dataclass(frozen=True)
class RankCorrelation:
    """How well a measure foretells accuracy. `tau` is None where the measure, or the accuracy, is the same for all.

    `beats_macs` compares the taus as they are; `share_beating_macs` says in what share of bootstrap resamples of the
    networks that came out so, 0.5 being no difference. Both are None for MACs themselves.
    """

    measure: str
    tau: Tau | None
    beats_macs: bool | None
    share_beating_macs: float | None

    @property
    def is_worth_something(self) -> bool:
        """Whether it beats MACs, and foretells accuracy at all: where MACs mislead, less misleading is not enough."""
        return bool(self.beats_macs) and self.tau is not None and self.tau.value > 0


@dataclass(frozen=True)
class ScoreCalibration:
    """The trained candidates by number, their mean top-1 in percent, and a verdict on every measure.

    `spread` is the standard deviation of accuracy among networks, `seed_spread` that of one network's trainings (None
    with one training each): where they are alike, no measure could foretell much.
    """

    numbers: tuple[int, ...]
    top1: tuple[float, ...]
    images: tuple[int, int]
    epochs: int
    seeds: int
    spread: float
    seed_spread: float | None
    verdicts: tuple[RankCorrelation, ...]

    def worthless(self, measures: Sequence[str]) -> tuple[str, ...]:
        """Those of the measures that do not beat MACs, or do not foretell accuracy at all."""
        useful = {verdict.measure for verdict in self.verdicts if verdict.is_worth_something}
        return tuple(name for name in measures if name not in useful)

    @property
    def top1_of(self) -> dict[int, float]:
        """Accuracy by candidate number."""
        return dict(zip(self.numbers, self.top1, strict=True))


def select_for_training(num_candidates: int, count: int, seed: int) -> tuple[int, ...]:
    """Numbers of the candidates to train: the derived one (0), and others drawn at random. Rising."""
    others = np.random.default_rng(seed).permutation(np.arange(1, num_candidates))[: count - 1]
    return (0, *sorted(int(number) for number in others))


def calibrate(
    numbers: Sequence[int],
    runs: Sequence[Sequence[float]],
    measures: Mapping[str, Sequence[float]],
    *,
    images: tuple[int, int],
    epochs: int,
) -> ScoreCalibration:
    """Hold every measure against what training came to.

    Args:
        numbers: Which candidates were trained.
        runs: Top-1 in percent of their trainings, one list each.
        measures: By name, of the same candidates, each so that higher ought to be better; `macs` among them.
        images: How many trained, how many judged.
        epochs: Length of a training.
    """
    from tfnas.utils.statistics import share_beating, tau_with_interval

    top1 = [float(np.mean(values)) for values in runs]
    reference = tau_with_interval(measures[MACS], top1)
    verdicts = []
    for name, values in measures.items():
        tau = reference if name == MACS else tau_with_interval(values, top1)
        beats, share = None, None
        if name != MACS:
            beats = tau is not None and tau.value > (0.0 if reference is None else reference.value)
            share = share_beating(values, measures[MACS], top1)
        verdicts.append(RankCorrelation(name, tau, beats, share))
    seeds = len(runs[0])
    within = float(np.sqrt(np.mean([np.var(values, ddof=1) for values in runs]))) if seeds > 1 else None
    return ScoreCalibration(
        numbers=tuple(numbers),
        top1=tuple(top1),
        images=images,
        epochs=epochs,
        seeds=seeds,
        spread=float(np.std(top1, ddof=1)),
        seed_spread=within,
        verdicts=tuple(verdicts),
    )
