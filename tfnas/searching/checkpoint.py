"""The saved state of a search: plain tensors and numbers in a file that is written whole, checked when read, run never.

The last two are kept (`checkpoints/search-<epoch>-<step>.pt`), so that a damaged one costs minutes, not the run.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from tfnas.errors import InputError
from tfnas.files import write_whole
from tfnas.latency.choice import Choice
from tfnas.searching.derive import choice_from
from tfnas.space import SearchSpace
from tfnas.space_file import space_from_json
from tfnas.tensor_file import load_plain

FORMAT = "tfnas-search-checkpoint"
VERSION = 1
FOLDER = "checkpoints"
_NAME = re.compile(r"search-(\d+)-(\d+)\.pt")

State = dict[str, Any]


def save_checkpoint(run_dir: Path, state: State, epoch: int, step: int) -> Path:
    """Write the state reached before weight step `step` of `epoch`, then drop all but the last two files.

    Raises RunFailed when it cannot be written; the files saved before stay.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, "epoch": epoch, "step": step, **state}, buffer)
    path = run_dir / FOLDER / f"search-{epoch:04d}-{step:06d}.pt"
    write_whole(path, buffer.getvalue())
    for old in saved_checkpoints(run_dir)[2:]:
        old.unlink()
    return path


def saved_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run directory, newest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in (run_dir / FOLDER).glob("search-*.pt")]
    placed = [((int(match[1]), int(match[2])), path) for match, path in found if match is not None]
    return [path for _, path in sorted(placed, reverse=True)]


def set_aside(run_dir: Path, good: Path) -> None:
    """Rename the checkpoints newer than a good one, or they would count among the two that are kept."""
    for path in saved_checkpoints(run_dir):
        if path == good:
            return
        path.rename(path.with_suffix(".damaged"))


def prepare_folder(run_dir: Path) -> bool:
    """Make the folder for checkpoints and clear it of what a killed save left; whether it holds checkpoints."""
    (run_dir / FOLDER).mkdir(exist_ok=True)
    for unfinished in (run_dir / FOLDER).glob(".search-*"):
        unfinished.unlink()
    return bool(saved_checkpoints(run_dir))


def load_checkpoint(path: Path) -> State:
    """Read one checkpoint onto the CPU. Raises InputError when it is missing, damaged or something else."""
    try:
        with zipfile.ZipFile(path) as archive:  # checks what torch.load does not: every member's checksum
            damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"{path} is damaged ({damaged})")
    except FileNotFoundError as error:
        raise InputError(f"no checkpoint at {path}") from error
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path} is damaged or is no checkpoint: {error}") from error
    state = load_plain(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of a search of this program")
    if state["version"] != VERSION:
        raise InputError(f"{path} has version {state['version']}, this program reads version {VERSION}")
    return dict(state)


def load_latest(run_dir: Path) -> tuple[State, Path, list[str]]:
    """The newest readable checkpoint, its path, and what is wrong with those passed over.

    Raises InputError when there is none.
    """
    problems: list[str] = []
    for path in saved_checkpoints(run_dir):
        try:
            return load_checkpoint(path), path, problems
        except InputError as error:
            problems.append(str(error))
    detail = "; ".join(problems) or "the run was stopped before its first one"
    raise InputError(f"{run_dir} holds no readable checkpoint ({detail}): start a new run")


def space_of(state: State) -> SearchSpace:
    """The search space that a checkpoint was made in."""
    return space_from_json(state["space"])


def choice_of(state: State) -> Choice:
    """What the search had learned when the checkpoint was taken."""
    widths = [[len(index) for index in row] for row in state["active"]]
    return choice_from(space_of(state), state["num_classes"], state["parameters"], widths)
