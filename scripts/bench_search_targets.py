"""Does a search meet its target, whatever the target and the seed? Searches of a space over seeds and targets.

    python scripts/bench_search_targets.py --targets 11 15 26 --seeds 0 1 2 3 4

Prints a line per search and a Markdown table at the end. A finished search is not repeated: its run directory under
--runs is read instead, so an interrupted benchmark goes on where it was. `error` is table latency over target less 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.utils.text import clock

COLUMNS = (
    "target ms", "seed", "table ms", "error %", "params k", "MACs M", "depths", "sampled paths %", "derived %",
    "entropy ops", "entropy depth", "time",
)  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=float, nargs="+", default=[11.0, 15.0, 26.0], help="milliseconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", type=Path, default=Path("runs/targets"), help="folder of the run directories")
    arguments = parser.parse_args()
    rows = []
    for target in arguments.targets:
        for seed in arguments.seeds:
            summary = searched(arguments.runs / f"target{target:g}-seed{seed}", target, seed)
            rows.append(row(summary))
            print(" | ".join(rows[-1]), flush=True)
    print("\n| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    errors = [float(cells[3]) for cells in rows]
    print(f"\n{len(rows)} searches, errors {min(errors):+.3f} % to {max(errors):+.3f} %")


def searched(run_dir: Path, target: float, seed: int) -> dict[str, Any]:
    """The summary of a search, made now, resumed, or read from its finished run directory."""
    finished = run_dir / "summary.json"
    if finished.is_file():
        summary: dict[str, Any] = json.loads(finished.read_text())
        return summary
    if (run_dir / "config.yaml").is_file():
        config = SearchConfig(resume=str(run_dir))
    else:
        config = SearchConfig(target_lat=target, seed=seed, run_dir=str(run_dir))
    return search(config, Console(quiet=True)).summary


def row(summary: dict[str, Any]) -> list[str]:
    """The cells of one search."""
    stages = summary["architecture"].split(":")[3:-1]
    depths = "-".join(str(0 if stage == "-" else stage.count(",") + 1) for stage in stages)
    return [
        f"{summary['target_ms']:g}", str(summary["seed"]), f"{summary['table_ms']:.3f}",
        f"{summary['error_percent']:+.3f}", f"{summary['params'] / 1e3:.1f}", f"{summary['macs'] / 1e6:.2f}", depths,
        f"{summary['supernet_top1']:.1f}", f"{summary['top1']:.1f}", f"{summary['operation_entropy']:.2f}",
        f"{summary['depth_entropy']:.2f}", clock(summary["seconds"]["total"]),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
