"""How much faster does a training-free search work than a plain implementation, at what ranking?

    python scripts/bench_evolve.py --json FILE [--only zen_score_ratio zen_tau]

A ratio is the seconds of `textbook_evolve.py` over ours, both by turns on one thread, in processor time: median,
smallest and largest.

* `analytic_ratio`: of a candidate of the search for a CIFAR network, mutated, held against limits on parameters, MACs
  and layers, and scored by its parameters where it is within them; both draw from the same population.
* `zen_ratio`: the same with the Zen-Score, on batches of 16 images.
* `zen_score_ratio`: of one Zen-Score of published networks; the smallest of theirs.
* `zen_tau`: Kendall's tau between the scores that a search takes and those of the network's module in double precision,
  of random structures of the CIFAR space within the limits.
* `workers_ratio`: seconds by the clock of that search with the Zen-Score in one process over those with two. It says
  something only where two cores have nothing else to do: `load` is the number of running processes at the start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import textbook_evolve as textbook
import torch
from scipy.stats import kendalltau

import tfnas
from tfnas import zoo
from tfnas.proxies import zen
from tfnas.runs.distributed import distributed_context
from tfnas.searching.evolution.evolutionary_search import EvolutionarySearch
from tfnas.searching.evolution.evolve_setup import prepare
from tfnas.searching.evolution.presets import preset_config
from tfnas.spaces.families import architecture_counts
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily
from tfnas.utils.garbage_collection import collecting_seldom

BATCH_SIZE = 16
TAU_BATCH_SIZE = 4  # double precision takes long
NETWORKS = (("zennet_cifar_model_size1M_res32", 32, 100), ("zennet_imagenet1k_flops400M_res224", 64, 1000))
"""Name, pixels a side and classes."""
LIMITS = textbook.Limits(params=1e6, macs=2e8, layers=18, image_size=32, num_classes=100, population=512)
"""Those of the published searches for CIFAR networks, and one on MACs."""
MOST_MUTATIONS = 40


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASURES), default=list(MEASURES), help="what to measure")
    parser.add_argument("--rounds", type=int, default=11, help="repetitions of each ratio")
    parser.add_argument("--structures", type=int, default=500, help="structures of zen_tau")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"torch": torch.__version__, "batch_size": BATCH_SIZE}
    results["load"] = [round(load, 1) for load in os.getloadavg()]
    for name in arguments.only:
        results[name] = MEASURES[name](arguments)
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def ratio(
    theirs: Callable[[], object],
    ours: Callable[[], object],
    rounds: int,
    counts: tuple[int, int] = (1, 1),
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Seconds of both, each for so many candidates, measured by turns, and the ratios of the turns."""
    seconds = []
    for number in range(rounds + 1):
        pair = seconds_of(theirs, clock) / counts[0], seconds_of(ours, clock) / counts[1]
        if number > 0:  # the first one warms up
            seconds.append(pair)
    ratios = [first / second for first, second in seconds]
    return {
        "median": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "textbook_seconds": round(statistics.median(first for first, _ in seconds), 5),
        "seconds": float(f"{statistics.median(second for _, second in seconds):.4g}"),
    }


def seconds_of(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Of one call."""
    start = clock()
    call()
    return clock() - start


# ---- searches -------------------------------------------------------------------------------------------------------


def analytic_ratio(arguments: argparse.Namespace) -> dict[str, Any]:
    """One candidate, scored by its parameters."""

    def score(text: str) -> float:
        return textbook.num_params(textbook.built(text, LIMITS.num_classes))

    return candidate_ratio("params", score, (4096, 8192, 32), arguments.rounds)


def zen_ratio(arguments: argparse.Namespace) -> dict[str, Any]:
    """One candidate, with the Zen-Score where it is within the limits."""

    def score(text: str) -> float:
        structure = tfnas.Structure.parse(text)
        return textbook.zen_score(structure, LIMITS.image_size, BATCH_SIZE, LIMITS.num_classes)

    return candidate_ratio("zen", score, (256, 64, 16), arguments.rounds)


def candidate_ratio(
    name: str, score: Callable[[str], float], counts: tuple[int, int, int], rounds: int
) -> dict[str, Any]:
    """The ratio with a score. `counts` are the candidates of ours before the first round, and of ours and theirs in
    each."""
    before, ours, theirs = counts
    with opened_search(name) as search:
        search.step(before)
        initial = search.setup.first.architecture.structure.to_text()
        plain = textbook.TextbookSearch(initial, LIMITS, score)
        random.seed(0)

        def plain_search() -> None:
            plain.texts = [member.architecture.structure.to_text() for member in search.population.members]
            plain.scores = [member.value for member in search.population.members]
            for _ in range(theirs):
                plain.iterate()

        return ratio(plain_search, lambda: search.step(ours), rounds, (theirs, ours))


def workers_ratio(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process and two, which draw the same candidates."""
    count = 64
    with opened_search("zen") as alone, opened_search("zen", jobs=2) as both:
        for search in (alone, both):
            search.step(count)
        calls = [partial(search.step, count) for search in (alone, both)]
        found = ratio(*calls, arguments.rounds, (count, count), time.perf_counter)
        assert [member.scores for member in alone.population.members] == [m.scores for m in both.population.members]
    return {"seconds_alone" if key == "textbook_seconds" else key: value for key, value in found.items()}


@contextmanager
def opened_search(score: str, jobs: int = 1) -> Iterator[EvolutionarySearch]:
    """Our search for a CIFAR network, before its first candidate."""
    config = preset_config(
        "zen-cifar-1m",
        score=score,
        batch_size=BATCH_SIZE,
        max_macs=LIMITS.macs,
        iterations=10**9,
        jobs=jobs,
        device="cpu",
        seed=0,
    )
    with distributed_context("cpu", None, 60) as processes, collecting_seldom():
        search = EvolutionarySearch(prepare(config, processes))
        try:
            search.build()
            yield search
        finally:
            search.setup.scorer.close()


# ---- scores ---------------------------------------------------------------------------------------------------------


def zen_score_ratio(arguments: argparse.Namespace) -> dict[str, Any]:
    """One Zen-Score of published networks."""
    found = {}
    for name, size, classes in NETWORKS:
        structure = zoo.facts(name).structure
        found[name] = ratio(
            lambda: textbook.zen_score(structure, size, BATCH_SIZE, classes),  # noqa: B023 - called at once
            lambda: tfnas.score("zen", structure, image_size=size, batch_size=BATCH_SIZE, variant="zennas"),  # noqa: B023
            arguments.rounds,
        )
    lowest = min(found.values(), key=lambda result: result["median"])
    return {**{key: lowest[key] for key in ("median", "lowest", "highest")}, "networks": found}


def zen_tau(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ranking of random structures by the score as it is computed, against that by the module in float64."""
    structures = cifar_structures(arguments.structures)
    fast = [tfnas.score("zen", found, batch_size=TAU_BATCH_SIZE) for found in structures]
    with mock.patch.object(zen, "describe_chain", return_value=None):
        exact = [tfnas.score("zen", found, batch_size=TAU_BATCH_SIZE, dtype="float64") for found in structures]
    difference = np.abs(np.subtract(fast, exact))
    return {
        "tau": round(float(kendalltau(fast, exact).statistic), 5),
        "structures": len(structures),
        "batch_size": TAU_BATCH_SIZE,
        "score_range": [round(min(exact), 2), round(max(exact), 2)],
        "median_difference": float(f"{np.median(difference):.2g}"),
        "largest_difference": float(f"{np.max(difference):.2g}"),
    }


def cifar_structures(count: int) -> list[StructureArchitecture]:
    """Distinct random structures within the budget, each some mutations away from the initial one."""
    family, generator = ZenFamily(), np.random.default_rng(0)
    found: dict[str, StructureArchitecture] = {}
    while len(found) < count:
        drawn = family.initial
        for _ in range(int(generator.integers(1, MOST_MUTATIONS + 1))):
            child = family.mutate(drawn, generator)
            if within_budget(child):
                drawn = child
        found[drawn.to_text()] = drawn
    return list(found.values())


def within_budget(drawn: StructureArchitecture) -> bool:
    """Whether it has no more parameters and layers than the search of a 1M CIFAR network may find."""
    layers = sum(block.layers for block in drawn.structure.blocks)
    return layers <= LIMITS.layers and architecture_counts(drawn).params <= LIMITS.params


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "analytic_ratio": analytic_ratio,
    "zen_ratio": zen_ratio,
    "zen_score_ratio": zen_score_ratio,
    "zen_tau": zen_tau,
    "workers_ratio": workers_ratio,
}

if __name__ == "__main__":
    main()
