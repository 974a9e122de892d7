"""Epochs that inheriting the supernet's weights saves: the same network trained from fresh and from inherited weights.

    python scripts/bench_inherit.py --search runs/search-20260131-120000 [--seeds 3] [--epochs 12]

Prints, for every seed, the accuracy before any training and the first epoch at which each accuracy is reached. The
schedule (a cosine to 0 over all epochs) is the same for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console

import tfnas

GOALS = (90.0, 95.0, 97.0, 98.0, 99.0)


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", required=True, help="run directory of a finished search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    reached: dict[str, list[list[float]]] = {"fresh": [], "inherited": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            for kind, source in (("fresh", "model_path"), ("inherited", "inherit")):
                summary = train(arguments, Path(folder) / f"{kind}-{seed}", seed, source)
                found = [first_epoch(summary["history"], goal) for goal in GOALS]
                reached[kind].append(found)
                before = summary["inherited"]["top1"] if summary["inherited"] else None
                start = "" if before is None else f", {before:.1f} % before any training"
                print(
                    f"seed {seed} {kind:10} epochs to {goals()}: {found}, last {summary['top1']:.2f} %{start}",
                    flush=True,
                )
    for place, goal in enumerate(GOALS):
        fresh, inherited = (statistics.median(row[place] for row in reached[kind]) for kind in ("fresh", "inherited"))
        print(f"{goal:g} %: median epoch {fresh:g} fresh, {inherited:g} inherited, saved {fresh - inherited:g}")


def train(arguments: argparse.Namespace, run_dir: Path, seed: int, source: str) -> dict[str, object]:
    """The summary of one training run."""
    config = tfnas.TrainConfig(
        **{source: arguments.search}, run_dir=str(run_dir), seed=seed, epochs=arguments.epochs, device="cpu"
    )
    return tfnas.retrain(config, Console(quiet=True)).summary


def first_epoch(history: list[dict[str, float]], goal: float) -> float:
    """The number of the first epoch after which the accuracy is at least the goal; infinite if none."""
    return next((entry["epoch"] for entry in history if entry["top1"] >= goal), float("inf"))


def goals() -> str:
    """The goals as text."""
    return ", ".join(f"{goal:g} %" for goal in GOALS)


if __name__ == "__main__":
    main()
