"""A search algorithm of one's own in one file: of many random networks, the largest one within a number of MACs.

Run directory, checkpoints, resumption, interruption and progress are those of every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

import tfnas
from tfnas.runs.algorithm import Algorithm
from tfnas.runs.resumption import resumed_settings
from tfnas.runs.run_settings import RUN_MAY_CHANGE, RunSettings
from tfnas.runs.session import ResumedRun, run_algorithm
from tfnas.spaces.families import architecture_counts


@dataclass(frozen=True, kw_only=True)
class RandomConfig(RunSettings):
    space: str = "digits"
    most_macs: int = 2_000_000
    epochs: int = 3
    draws: int = 8
    resume: str | None = None


class RandomSearch(Algorithm[int]):
    kind = "random"

    def __init__(self, config, processes):
        super().__init__(config, processes, epochs=config.epochs, steps_per_epoch=config.draws)
        self.space, self.generator = tfnas.space(config.space), torch.Generator().manual_seed(config.seed)
        self.best, self.best_macs = None, 0

    def step(self, batch):
        depths = [self._one_of(choices) for choices in self.space.depth_choices]
        operations = [self._one_of(range(len(self.space.operations))) for _ in self.space.blocks]
        places = zip(self.space.blocks, operations, strict=True)
        widths = [self._one_of(self.space.widths(place, self.space.operations[index])) for place, index in places]
        drawn = self.space.architecture(operations, depths, widths, num_classes=10)
        macs = architecture_counts(drawn).macs
        if self.best_macs < macs <= self.config.most_macs:
            self.best, self.best_macs = drawn, macs
        self.progress.add(macs=macs)

    def _one_of(self, choices):
        return choices[int(torch.randint(len(choices), (), generator=self.generator))]

    def state(self):
        text = self.best and self.best.to_text()
        return {"generator": self.generator.get_state(), "best": text, "best_macs": self.best_macs}

    def restore(self, state):
        self.generator.set_state(state["generator"])
        self.best, self.best_macs = state["best"] and tfnas.Architecture.parse(state["best"]), state["best_macs"]

    def conclude(self, show):
        return {"architecture": self.best.to_text(), "macs": self.best_macs}

    def write_results(self, run_dir):
        run_dir.write_architecture(self.best)

    def how_to_resume(self, run_dir):
        return f"Resume with: random_search(RandomConfig(resume={str(run_dir)!r}))"


def random_search(config, console=None):
    """Search, or resume the search in `config.resume`; returns the run directory and its summary."""
    resumed = None
    if config.resume is not None:
        run_dir, may_change = Path(config.resume), {*RUN_MAY_CHANGE, "resume"}
        config, remark = resumed_settings(config, run_dir, RandomSearch.kind, None, may_change=may_change)
        resumed = ResumedRun(run_dir, remark)
    return run_algorithm(config, lambda processes: RandomSearch(config, processes), console, resumed)
