"""Epochs that inheriting the supernet's weights saves: the same network trained from fresh and from inherited weights.

    python scripts/bench_inherit.py --search runs/search-20260131-120000 [--seeds 3] [--epochs 12] [--gentle_lr 0.02]

Prints, for every seed, the first epoch after which each accuracy is reached (0: before any training). The schedule (a
cosine to 0 over all epochs) is the same for all; inherited weights are also trained at a lower learning rate.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

import tfnas

GOALS = (90.0, 95.0, 97.0, 98.0, 99.0)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", required=True, help="run directory of a finished search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--gentle_lr", type=float, default=0.02, help="the lower learning rate")
    arguments = parser.parse_args()
    arms = {
        "fresh": {"model_path": arguments.search},
        "inherited": {"inherit": arguments.search},
        "inherited, lower lr": {"inherit": arguments.search, "lr": arguments.gentle_lr},
    }
    reached: dict[str, list[list[float]]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            for name, settings in arms.items():
                run_dir = str(Path(folder) / f"{name}-{seed}")
                config = tfnas.TrainConfig(
                    **settings, run_dir=run_dir, seed=seed, epochs=arguments.epochs, device="cpu"
                )
                summary = tfnas.retrain(config, Console(quiet=True)).summary
                reached[name].append([first_epoch(summary, goal) for goal in GOALS])
                inherited = summary["inherited"]
                before = f"{inherited['top1']:.2f} % before any training, " if inherited else ""
                print(f"seed {seed}, {name}: {before}epochs to {goals()}: {reached[name][-1]}, ", end="")
                print(f"last {summary['top1']:.2f} %", flush=True)
    for name, rows in reached.items():
        medians = [statistics.median(row[place] for row in rows) for place in range(len(GOALS))]
        print(f"median epochs to {goals()}, {name}: {medians}")


def first_epoch(summary: dict[str, Any], goal: float) -> float:
    """The first epoch after which the accuracy is at least the goal, 0 before any training; infinite if none."""
    if summary["inherited"] and summary["inherited"]["top1"] >= goal:
        return 0.0
    return next((entry["epoch"] for entry in summary["history"] if entry["top1"] >= goal), float("inf"))


def goals() -> str:
    """The goals as text."""
    return ", ".join(f"{goal:g} %" for goal in GOALS)


if __name__ == "__main__":
    main()
