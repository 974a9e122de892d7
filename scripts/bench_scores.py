"""Milliseconds per architecture and per score: what each zero-shot score costs.

    python scripts/bench_scores.py [--scores zen naswot ...] [--structures R50-like ...] [--batch_size 16]

On published structures of the zoo, with one thread. Scores that pass images through run at 32 pixels for CIFAR
networks and 64 for others (what is scored does not depend on it, what it costs does); closed forms at the size that
the network is meant for. Each is called once before it is timed; then the median of several calls is taken. `-`:
the score is not for this network.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import tfnas
from tfnas import zoo
from tfnas.proxies.score import ScoreFailed, find_score, score, score_names

STRUCTURES = (
    "init_XXBL_cifar",
    "zennet_cifar_model_size1M_res32",
    "init_IDW_imagenet",
    "zennet_imagenet1k_flops400M_res224",
    "zennet_imagenet1k_latency01ms_res224",
    "ezennet_imagenet1k_flops400M_res224_l",
    "deepmad-R18",
    "deepmad-R50",
    "deepmad-29M-224",
    "R50-like",
    "maedet_s",
    "mixed7d0G",
    "E3D_S",
)
ANALYTIC_CALLS, OTHER_CALLS = 51, 3
LONG_MS = 3000  # what takes longer is called once more only
SMALL_IMAGE, IMAGE = 32, 64


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", nargs="+", default=list(score_names()), help="scores to time (default: all)")
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), help="names of the zoo")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--image_size", type=int, help="for scores that pass images through")
    arguments = parser.parse_args()
    for name in arguments.scores:
        find_score(name)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread, batch {arguments.batch_size}; milliseconds")
    print(f"| structure | pixels | {' | '.join(arguments.scores)} |")
    print(f"|---|---|{'---|' * len(arguments.scores)}")
    for structure in arguments.structures:
        small = "cifar" in structure
        pixels = arguments.image_size or (SMALL_IMAGE if small else IMAGE)
        cells = [cell(name, structure, pixels, arguments.batch_size) for name in arguments.scores]
        print(f"| {structure} | {pixels} | {' | '.join(cells)} |", flush=True)


def cell(name: str, structure: str, pixels: int, batch_size: int) -> str:
    """The median of one score of one structure, as text."""
    facts, analytic = zoo.facts(structure), find_score(name).cost == "analytic"
    settings = {"image_size": (facts.resolution or pixels) if analytic else pixels, "batch_size": batch_size}
    settings["frames"] = facts.frames
    try:
        first = once(name, facts.structure, settings)
        others = 1 if first > LONG_MS else OTHER_CALLS
        times = [once(name, facts.structure, settings) for _ in range(ANALYTIC_CALLS if analytic else others)]
    except tfnas.InputError:
        return "-"
    except ScoreFailed as error:
        return f"fails ({str(error).rpartition(': ')[2]})"
    milliseconds = statistics.median(times)
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def once(name: str, structure: object, settings: dict[str, int]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    score(name, structure, **settings)  # type: ignore[arg-type]
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
