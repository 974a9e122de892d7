"""How much faster are candidates of a training-free search scored than in a plain implementation, at what ranking?

    python scripts/bench_evolve.py --json FILE [--only zen_score_ratio zen_tau]

One thread. A ratio is the seconds of processor time of `textbook_evolve.py` over ours, for the same candidates, both
by turns: median, smallest and largest. `zen_score_ratio` is of one Zen-Score of published networks, and the smallest of
theirs. `zen_tau` is Kendall's tau between the scores that a search takes and those of the network's module in double
precision, of random structures of the CIFAR space within the budget of a published search.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
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
from tfnas.spaces.families import architecture_counts
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily

BATCH_SIZE = 16
TAU_BATCH_SIZE = 4  # double precision takes long
NETWORKS = (("zennet_cifar_model_size1M_res32", 32, 100), ("zennet_imagenet1k_flops400M_res224", 64, 1000))
"""Name, pixels a side and classes."""
MOST_PARAMS, MOST_LAYERS = 1e6, 18
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
    results = {"torch": torch.__version__, "batch_size": BATCH_SIZE}
    for name in arguments.only:
        results[name] = MEASURES[name](arguments)
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def ratio(theirs: Callable[[], object], ours: Callable[[], object], rounds: int) -> dict[str, float]:
    """Seconds of both, measured by turns, and the ratios of the turns."""
    seconds = []
    for number in range(rounds + 1):
        pair = processor_seconds(theirs), processor_seconds(ours)
        if number > 0:  # the first one warms up
            seconds.append(pair)
    ratios = [first / second for first, second in seconds]
    return {
        "median": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "textbook_seconds": round(statistics.median(first for first, _ in seconds), 5),
        "seconds": round(statistics.median(second for _, second in seconds), 5),
    }


def processor_seconds(call: Callable[[], object]) -> float:
    """Of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


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
    return layers <= MOST_LAYERS and architecture_counts(drawn).params <= MOST_PARAMS


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "zen_score_ratio": zen_score_ratio,
    "zen_tau": zen_tau,
}

if __name__ == "__main__":
    main()
