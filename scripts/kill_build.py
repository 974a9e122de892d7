"""A latency table built while it is killed ten times, against one that is left alone: they must cover the same.

    python scripts/kill_build.py [--space digits] [--batch 32] [--kills 10] [--out_dir FOLDER]

Each kill is SIGKILL at a random measurement of those that the whole build makes. Prints for both tables the keys, the
points, the seconds, the held-out error, and the difference of their figures. Exit status 1 when a key or the range of a
curve is missing.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tfnas.latency.cost_table import LatencyTable
from tfnas.report.table_report import ALL, interpolation_errors

_LOOK_SECONDS = 0.3


def main() -> None:
    """Build, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="digits", help="space to measure")
    parser.add_argument("--batch", default="32", help="images per batch")
    parser.add_argument("--kills", type=int, default=10, help="times that the second build is killed")
    parser.add_argument("--out_dir", default=None, help="folder for the two tables; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out_dir or temporary)
        alone, killed = folder / "alone.json", folder / "killed.json"
        command = [sys.executable, "-m", "tfnas", "latency", "build", "--space", arguments.space]
        command += ["--batch", arguments.batch, "--out"]
        subprocess.run([*command, str(alone)], check=True, stdin=subprocess.DEVNULL)
        kill_and_resume([*command, str(killed)], killed, measurement_count(alone), arguments.kills)
        problems = compare(LatencyTable.load(alone), LatencyTable.load(killed))
    if problems:
        raise SystemExit("the tables differ: " + ", ".join(problems))
    print("The build that was killed and resumed covers what the one that was left alone covers.")


def measurement_count(path: Path) -> int:
    """Number of measurements of a table."""
    built = LatencyTable.load(path).contents.build
    assert built is not None
    return built.visits


def kill_and_resume(command: list[str], out: Path, measurements: int, kills: int) -> None:
    """Run a build that makes about so many measurements to its end, killed so many times before."""
    draws = random.Random(0)
    journal = out.with_name(f"{out.name}.partial")
    for kill, share in enumerate(sorted(draws.uniform(0.0, 0.95) for _ in range(kills))):
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            while process.poll() is None and measurements_in(journal) < share * measurements:
                time.sleep(_LOOK_SECONDS)
            if process.poll() is not None:
                raise SystemExit(f"the build ended before kill {kill + 1}")
            process.kill()
        print(f"killed after {measurements_in(journal)} measurements, {kill + 1} of {kills}", flush=True)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def measurements_in(journal: Path) -> int:
    """Number of measurements in a journal, after its first line."""
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0


def compare(alone: LatencyTable, killed: LatencyTable) -> list[str]:
    """What the second table lacks; the figures of both are printed."""
    problems = []
    for name, table in (("alone", alone), ("killed", killed)):
        built, error = table.contents.build, interpolation_errors(table.contents)[ALL]
        assert built is not None
        print(
            f"{name:<8}{len(table.contents.curves)} keys, {built.points} of {built.enumerated_points} points, "
            f"{built.visits} measurements, {built.seconds:.0f} s, held out {error.median_percent:.2f} % in the median, "
            f"{error.p95_percent:.2f} % at the 95th percentile of {error.points} points, "
            f"reference {built.reference_ms:.3f} ms"
        )
    ratios = []
    for key, curve in alone.contents.curves.items():
        other = killed.contents.curves.get(key)
        if other is None or (other.widths[0], other.widths[-1]) != (curve.widths[0], curve.widths[-1]):
            problems.append(key)
            continue
        classes = alone.contents.classes, killed.contents.classes
        ratios += list(other.dense_ms(classes[1]) / curve.dense_ms(classes[0]))
    low, middle, high = np.percentile(ratios, [5, 50, 95])
    print(f"killed / alone over every width of every key: median {middle:.3f}, 5 % to 95 %: {low:.3f} to {high:.3f}")
    return problems


if __name__ == "__main__":
    main()
