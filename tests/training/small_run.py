"""A training run small enough for tests: 8 px digits and a tiny architecture; in this process or in several."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import torch
from tiny import tiny_space

from tfnas.checkpoint import load_checkpoint
from tfnas.training import TrainConfig
from tfnas.training.session import KIND, train_checkpoints

DRIVER = """
import sys
import torch
import tfnas
settings = eval(sys.argv[1])
torch.set_default_dtype(getattr(torch, settings.pop("dtype", "float32")))
tfnas.retrain(tfnas.TrainConfig(**settings))
"""


def tiny_architecture(num_classes=10):
    space = tiny_space()
    blocks = len(space.blocks)
    widths = [space.initial_width(place, space.operations[n % 2]) for n, place in enumerate(space.blocks)]
    depths = [stage.blocks for stage in space.stages]
    return space.architecture([n % 2 for n in range(blocks)], depths, widths, num_classes=num_classes)


def write_architecture(folder):
    path = folder / "architecture.json"
    path.write_text(json.dumps(tiny_architecture().to_json()))
    return str(path)


def small_settings(folder, name, **changes):
    """The settings of a run in `folder/name`, which saves after every step."""
    settings = {"config_path": write_architecture(folder), "data": "digits", "seed": 4, "device": "cpu", "threads": 1}
    settings |= {"epochs": 2, "batch_size": 96, "lr": 0.05, "dropout_rate": 0.2, "drop_connect_rate": 0.2}
    return {**settings, "run_dir": str(folder / name), "save_minutes": 1e-9, **changes}


def small_config(folder, name, **changes):
    return TrainConfig(**small_settings(folder, name, **changes))


def summary_of(run_dir):
    return json.loads((Path(run_dir) / "summary.json").read_text())


def final_state(run_dir):
    """What a resumed run must reproduce: the last checkpoint but its times, and the files of the result."""
    state = load_checkpoint(train_checkpoints(Path(run_dir)).saved()[0], KIND)
    del state["seconds"]
    return state, torch.load(Path(run_dir) / "model.pt", weights_only=True)


def start_processes(settings, number=2):
    """Start processes as a launcher would; they share their standard error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, repr(settings)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(number)
    ]


def run_processes(settings, number=2):
    """Run them to their end; all must succeed."""
    processes = start_processes(settings, number)
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * number, said


def random_points(seed, count, most):
    return random.Random(seed).sample(range(most), count)
