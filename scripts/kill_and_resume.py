"""One short real search, killed and resumed, against the same search uninterrupted: they must end bit-identical.

    python scripts/kill_and_resume.py [--target_lat 15] [--epochs 3] [--processes 2]

Exit status 1 says what differs. Takes about two such searches. Several processes are started by torchrun, and all are
killed at once, torchrun too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from tfnas.runs.run_directory import SEARCH_KIND, load_checkpoint, search_checkpoints

PROGRAM = str(Path(__file__).resolve().parents[1] / "train_search.py")
NUMBERS = ("target_ms", "table_ms", "error_percent", "params", "macs", "top1", "supernet_top1", "architecture", "seed")
PATIENCE_S = 240


def main() -> None:
    """Run, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target_lat", default="15", help="target in milliseconds")
    parser.add_argument("--epochs", default="3", help="epochs of the search; one of them is warm-up")
    parser.add_argument("--processes", default=1, type=int, help="processes that search together")
    arguments = parser.parse_args()
    command = [sys.executable, PROGRAM]
    if arguments.processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*launcher, f"--nproc_per_node={arguments.processes}", PROGRAM]
    flags = ["--target_lat", arguments.target_lat, "--epochs", arguments.epochs, "--warmup_epochs", "1"]
    flags += ["--device", "cpu", "--save_minutes", "0.01"]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        print("1. an uninterrupted search", flush=True)
        subprocess.run([*command, *flags, "--run_dir", str(whole)], check=True, stdin=subprocess.DEVNULL)
        print("2. the same search, killed after a checkpoint inside its second epoch", flush=True)
        kill_inside_epoch([*command, *flags, "--run_dir", str(killed)], killed)
        print("3. resumed", flush=True)
        subprocess.run([*command, "--resume", str(killed)], check=True, stdin=subprocess.DEVNULL)
        problems = differences(whole, killed)
    if problems:
        raise SystemExit("the resumed search differs: " + ", ".join(problems))
    print("The search that was killed and resumed is bit-identical to the uninterrupted one.")


def kill_inside_epoch(command: list[str], run_dir: Path) -> None:
    """Start a search and end it with SIGKILL once it has saved a state inside epoch 1 (counted from 0)."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not any(inside_epoch(path) for path in search_checkpoints(run_dir).saved()):
            if process.poll() is not None or time.monotonic() > deadline:
                kill_all(process.pid)
                raise SystemExit("the search ended, or took too long, before it could be killed")
            time.sleep(0.05)
        kill_all(process.pid)
    print("killed at", search_checkpoints(run_dir).saved()[0].name, flush=True)


def kill_all(pid: int) -> None:
    """End a process and all that it has started, directly or not, with SIGKILL."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    for number in found:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def inside_epoch(checkpoint: Path) -> bool:
    """Whether the name search-<epoch>-<step>.pt says epoch 1 or later, after its first step."""
    epoch, step = (int(number) for number in checkpoint.stem.split("-")[1:])
    return epoch >= 1 and step > 0


def differences(whole: Path, killed: Path) -> list[str]:
    """Names of what is not equal in the two run directories."""
    files = [name for name in ("architecture.json", "model.config") if read(whole, name) != read(killed, name)]
    one, other = (json.loads(read(folder, "summary.json")) for folder in (whole, killed))
    numbers = [f"summary {name}" for name in NUMBERS if one[name] != other[name]]
    states = [load_checkpoint(search_checkpoints(folder).saved()[0], SEARCH_KIND) for folder in (whole, killed)]
    parts = ("parameters", "supernet", "active", "weight_optimizer", "architecture_optimizer")
    return [*files, *numbers, *(f"checkpoint {part}" for part in parts if not same(states[0][part], states[1][part]))]


def read(folder: Path, name: str) -> bytes:
    """The bytes of a file of a run directory."""
    return (folder / name).read_bytes()


def same(one: object, other: object) -> bool:
    """Bit equality through the dictionaries and lists of a checkpoint."""
    match one, other:
        case torch.Tensor(), torch.Tensor():
            return torch.equal(one, other)
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case ((list() | tuple()), (list() | tuple())):
            return len(one) == len(other) and all(map(same, one, other))
        case _:
            return one == other


if __name__ == "__main__":
    main()
