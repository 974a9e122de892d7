"""How far the paper's width fitting ends from its target, and how far `meet_target` does, on random search results.

    python scripts/bench_target.py --space imagenet --lookup_path latency_gpu.pkl --cases 60

Targets are uniform over 2 % to 98 % of the space's range, or near the derived choice's latency (--near);
log-probabilities are those of normal numbers with the given scale; widths are uniform in their ranges. Errors are
percent of the target, latency minus target.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import tfnas


def main() -> None:
    """Print the distribution of both errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="imagenet", help="name or YAML file of a search space")
    parser.add_argument("--lookup_path", required=True, help="its latency table")
    parser.add_argument("--cases", type=int, default=60, help="how many random choices and targets")
    parser.add_argument("--scale", type=float, default=1.0, help="standard deviation of the random numbers")
    parser.add_argument("--near", type=float, help="targets within this percentage of the derived choice's latency")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    space, table = tfnas.space(arguments.space), tfnas.LatencyTable.load(arguments.lookup_path)
    random = np.random.default_rng(arguments.seed)
    lowest, highest = table.range_ms(space)
    errors, seconds = [], []
    for _ in range(arguments.cases):
        choice = random_choice(space, random, arguments.scale)
        target_ms = lowest + (highest - lowest) * random.uniform(0.02, 0.98)
        if arguments.near is not None:
            derived_ms = table.architecture_ms(choice.derived())
            target_ms = min(max(derived_ms * (1 + random.uniform(-0.01, 0.01) * arguments.near), lowest), highest)
        fitted = tfnas.fit_widths(choice.derived(), table, target_ms)
        started = time.perf_counter()
        met = tfnas.meet_target(choice, table, target_ms)
        seconds.append(time.perf_counter() - started)
        errors.append([100 * (table.architecture_ms(found) / target_ms - 1) for found in (fitted, met)])
    print(f"space {space.name}, {lowest:.4g} to {highest:.4g} ms, {arguments.cases} cases")
    print(f"{'error in percent':<18}{'lowest':>10}{'median':>10}{'highest':>10}{'within -0.5..0':>16}")
    for name, row in zip(("fit_widths", "meet_target"), np.array(errors).T, strict=True):
        within = int(((row >= -0.5 - 1e-9) & (row <= 0)).sum())
        numbers = f"{row.min():>10.2f}{np.median(row):>10.3f}{row.max():>10.2f}"
        print(f"{name:<18}{numbers}{f'{within} of {len(row)}':>16}")
    print(f"meet_target: median {np.median(seconds):.3f} s, longest {max(seconds):.3f} s")


def random_choice(space: tfnas.SearchSpace, random: np.random.Generator, scale: float) -> tfnas.Choice:
    """A choice as a search could leave it: random log-probabilities and widths."""
    alphas = scale * random.standard_normal((len(space.blocks), len(space.operations)))
    depths = [scale * random.standard_normal(len(choices)) for choices in space.depth_choices]
    ranges = [[space.width_range(place, operation) for operation in space.operations] for place in space.blocks]
    return tfnas.Choice(
        space=space,
        num_classes=100,
        log_alphas=alphas - np.log(np.exp(alphas).sum(axis=1, keepdims=True)),
        log_depths=tuple(values - np.log(np.exp(values).sum()) for values in depths),
        widths=np.array([[random.integers(low, high + 1) for low, high in row] for row in ranges]),
    )


if __name__ == "__main__":
    main()
