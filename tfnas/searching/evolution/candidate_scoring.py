"""Scores of the networks that an evolutionary search draws: in this process, or in worker processes.

A score depends on the network and the options alone, which have the seed: who computes it makes no difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from tfnas.core.errors import InputError, RunFailed
from tfnas.core.family import Family
from tfnas.data.data_config import DataConfig
from tfnas.proxies.labelled_images import labelled_images
from tfnas.proxies.score import Score, ScoreFailed, measure
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.runs.worker_pool import LOCAL, WorkerPool, owned_processes
from tfnas.searching.evolution.objective import Objective
from tfnas.spaces.families import receive_family, registered_family

_ATTEMPTS = 3
_REMEMBERED = 100_000

Scores = tuple[float, ...]
Outcome = Scores | str
"""The scores of a network, or why it has none."""


@dataclass(frozen=True)
class NetworkScores:
    """The scores of one network, to be computed anywhere.

    `terms` are scores with their options; those that need real images take two batches of the `data`. `family` is one
    that only this process knows.
    """

    architecture: Any
    terms: tuple[tuple[Score, ScoreOptions], ...]
    data: DataConfig | None
    family: Family | None = None

    def compute(self) -> Scores:
        """One number per term. Raises ScoreFailed and InputError as `tfnas.proxies.score.measure` does."""
        if self.family is not None:
            receive_family(self.family)
        scored = ScoredNetwork(architecture=self.architecture)
        return tuple([measure(score, scored, self._options(score, options)) for score, options in self.terms])

    def _options(self, score: Score, options: ScoreOptions) -> ScoreOptions:
        if not score.needs_data:
            return options
        if self.data is None:
            raise InputError(f"{score.name} needs real images: name them with --data")
        size = self.architecture.image_size
        images, labels = labelled_images(self.data, size, 2 * options.batch_size, options.seed)
        return dataclasses.replace(options, images=images, labels=labels)


class CandidateScorer:
    """Scores networks; `first_problem` is the first reason why one has no score."""

    def __init__(
        self, objective: Objective, options: ScoreOptions, pool: WorkerPool, data: DataConfig | None = None
    ) -> None:
        self.objective, self.data = objective, data
        self._terms = tuple(
            (term.score, dataclasses.replace(options, variant=term.variant)) for term in objective.terms
        )
        self.first_problem: str | None = None
        self._pool = pool
        self._connections = ExitStack()
        self._remembered: dict[Any, Outcome] = {}

    @property
    def jobs(self) -> int:
        """Worker processes on this machine."""
        return self._pool.jobs

    @property
    def in_workers(self) -> bool:
        """Whether worker processes compute; closed forms take less than sending them."""
        return not self.objective.is_analytic and (self._pool.backend != LOCAL or self._pool.jobs > 1)

    def close(self) -> None:
        """End the worker processes, if any were needed."""
        self._connections.close()

    def scores(self, architectures: Sequence[Any]) -> list[Outcome]:
        """What every one of these distinct networks scores, in their order.

        Raises RunFailed where worker processes die again and again.
        """
        if self.objective.is_analytic:
            outcomes = [self.here(architecture) for architecture in architectures]
        else:
            new = [architecture for architecture in architectures if architecture not in self._remembered]
            found = self._in_workers(new) if self.in_workers else [self.here(architecture) for architecture in new]
            known = self._remembered | dict(zip(new, found, strict=True))
            outcomes = [known[architecture] for architecture in architectures]
            self._remember(new, found)
        for outcome in outcomes:
            if isinstance(outcome, str) and self.first_problem is None:
                self.first_problem = outcome
        return outcomes

    def _task(self, architecture: Any, family: Family | None = None) -> NetworkScores:
        return NetworkScores(architecture, self._terms, self.data, family)

    def here(self, architecture: Any) -> Outcome:
        """What a network scores, computed in this process."""
        try:
            return self._task(architecture).compute()
        except (ScoreFailed, InputError) as error:
            return str(error)

    def _in_workers(self, architectures: Sequence[Any]) -> list[Outcome]:
        if not architectures:
            return []
        if not self._pool.connected:
            self._connections.enter_context(owned_processes())
            self._pool = self._connections.enter_context(self._pool.connection())
        family = registered_family(architectures[0].family)
        found: dict[int, Outcome] = {}
        for attempt in range(1, _ATTEMPTS + 1):
            missing = [number for number in range(len(architectures)) if number not in found]
            results = self._pool.results([self._task(architectures[number], family) for number in missing])
            try:
                with closing(results):
                    for result in results:
                        value = result.value if result.problem is None else result.problem
                        found[missing[result.number]] = value
                break
            except RunFailed:  # a process died: what it was to compute is computed by another
                if attempt == _ATTEMPTS:
                    raise
        return [found[number] for number in range(len(architectures))]

    def _remember(self, architectures: Sequence[Any], outcomes: Sequence[Outcome]) -> None:
        self._remembered.update(zip(architectures, outcomes, strict=True))
        while len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
