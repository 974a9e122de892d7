"""A training run small enough for tests: 8 px digits and a tiny architecture; in this process or in several."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from real_process import run_together, start_together
from rich.console import Console
from tiny import tiny_space

from tfnas.runs.endings import Interruption
from tfnas.runs.run_directory import Checkpoints, RunDirectory, load_checkpoint
from tfnas.runs.session import Session, _directory
from tfnas.training.retraining import NetworkTraining, retrain
from tfnas.training.train_config import KIND, MAY_CHANGE, TrainConfig


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


def built(setup):
    """A training at its beginning."""
    training = NetworkTraining(setup)
    training.build()
    return training


def session_of(setup, folder):
    """A session of it, in a folder."""
    console = Console(quiet=True)
    return Session(built(setup), RunDirectory(folder, console), Interruption(console))


def begun_run(setup):
    """A run directory as it is before the first step."""
    console = Console(quiet=True)
    return RunDirectory(_directory(NetworkTraining(setup), None, console), console)


def small_config(folder, name, **changes):
    return TrainConfig(**small_settings(folder, name, **changes))


def summary_of(run_dir):
    return json.loads((Path(run_dir) / "summary.json").read_text())


def train_checkpoints(run_dir):
    return Checkpoints(Path(run_dir), KIND)


def final_state(run_dir):
    """What a resumed run must reproduce: the last checkpoint but times and what may change; the result's files."""
    state = load_checkpoint(train_checkpoints(run_dir).saved()[0], KIND)
    del state["seconds"]
    state["settings"] = {name: value for name, value in state["settings"].items() if name not in MAY_CHANGE}
    return state, torch.load(Path(run_dir) / "model.pt", weights_only=True)


def _train(settings, dtype):
    torch.set_default_dtype(dtype)
    retrain(TrainConfig(**settings), Console(quiet=True))


def start_processes(folder, settings, number=2, dtype=torch.float32):
    """Start processes as a launcher would; what they say goes into the folder."""
    return start_together(_train, settings, dtype, folder=folder, number=number)


def run_processes(folder, settings, number=2, dtype=torch.float32):
    """Run them to their end; all must succeed."""
    run_together(_train, settings, dtype, folder=folder, number=number)


def random_points(seed, count, most):
    return random.Random(seed).sample(range(most), count)
