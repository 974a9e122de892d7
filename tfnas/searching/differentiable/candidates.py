"""Candidates: architectures sampled from the distribution that a search has learned, all fitted to its target.

A sample adds Gumbel noise, times a temperature, to the log-probabilities of operations and depths, and `meet_target`
finds the most probable architecture under the noisy log-probabilities that is in the latency band. If every choice can
be fitted to the band, that is a sample of the learned distribution itself (temperature 1); otherwise it is the choice
nearest to the sample (perturb and maximise: Papandreou and Yuille, ICCV 2011).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tfnas.core.architecture import Architecture
from tfnas.core.choice import Choice
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.meet_target import meet_target

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
"""The last one is practically uniform: a search's log-probabilities differ by a few units."""

_PATIENCE = 32  # consecutive repeats after which the temperature is raised


@dataclass(frozen=True)
class Candidate:
    """An architecture in the band; `temperature` is that of its sample, 0 for the derived one.

    `log_prob_gap` is the log-probability of its operations and depths minus that of the most probable ones, at most 0.
    """

    number: int
    architecture: Architecture
    temperature: float
    log_prob_gap: float

    @property
    def is_derived(self) -> bool:
        """Whether it is the architecture that the search returned."""
        return self.number == 0


def draw_candidates(
    choice: Choice,
    table: LatencyTable,
    target: float,
    derived: Architecture,
    count: int,
    seed: int,
    on_draw: Callable[[int], None] = lambda _: None,
) -> tuple[Candidate, ...]:
    """The derived architecture and further distinct ones, `count` in all or as many as can be found.

    The temperature is raised step by step when samples repeat. `on_draw` is called after every sample with the number
    of candidates. The same arguments give the same candidates; a smaller `count` gives the first of them.
    """
    generator = np.random.default_rng(seed)
    found = {derived: Candidate(0, derived, 0.0, log_prob_gap(choice, derived))}
    settled = {_selection(choice, derived)}
    for temperature in TEMPERATURES:
        repeats = 0
        while len(found) < count and repeats < _PATIENCE:
            noisy = _noisy(choice, temperature, generator)
            wanted = _used_operations(noisy.best_operations, noisy.best_depths, choice)
            architecture = None if wanted in settled else meet_target(noisy, table, target)
            if architecture is None or architecture in found:
                repeats += 1
            else:
                repeats = 0
                gap = log_prob_gap(choice, architecture)
                found[architecture] = Candidate(len(found), architecture, temperature, gap)
            if architecture is not None and _selection(choice, architecture) == wanted:
                settled.add(wanted)  # its widths do not depend on the noise that led there
            on_draw(len(found))
    return tuple(found.values())


def log_prob_gap(choice: Choice, architecture: Architecture) -> float:
    """The score of an architecture's operations and depths in a choice (see `Choice.score`)."""
    depths = tuple(len(blocks) for blocks in architecture.stages)
    operations = [0] * len(choice.space.blocks)
    for number, operation in _operations(choice, architecture):
        operations[number] = operation
    return choice.score(operations, depths)


Selection = tuple[tuple[int, ...], tuple[int, ...]]


def _selection(choice: Choice, architecture: Architecture) -> Selection:
    depths = tuple(len(blocks) for blocks in architecture.stages)
    return tuple(operation for _, operation in _operations(choice, architecture)), depths


def _used_operations(operations: tuple[int, ...], depths: tuple[int, ...], choice: Choice) -> Selection:
    """The operations of the blocks within the depths, and the depths."""
    places = zip(choice.space.blocks, operations, strict=True)
    return tuple(operation for place, operation in places if place.position < depths[place.stage]), depths


def _operations(choice: Choice, architecture: Architecture) -> Iterator[tuple[int, int]]:
    """Block number in the space and operation index of every block of an architecture."""
    space = choice.space
    for place in architecture.blocks:
        number = space.first_blocks[place.stage] + place.position
        yield number, space.operation_index(space.blocks[number], place.block)


def _noisy(choice: Choice, temperature: float, generator: np.random.Generator) -> Choice:
    def with_noise(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values / temperature + generator.gumbel(size=values.shape)

    log_depths = tuple(with_noise(values) for values in choice.log_depths)
    return dataclasses.replace(choice, log_alphas=with_noise(choice.log_alphas), log_depths=log_depths)
