"""The saved state of a run: plain tensors and numbers in a file that is written whole, checked when read, run never.

The last two are kept (`checkpoints/<kind>-<epoch>-<step>.pt`), so that a damaged one costs minutes, not the run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from tfnas.core.errors import InputError, NotResumable
from tfnas.utils.files import write_whole

VERSION = 1
FOLDER = "checkpoints"
_DAMAGED = ".damaged"

State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a run directory; `kind` says of what (`search`, `train`)."""

    run_dir: Path
    kind: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.run_dir / FOLDER

    def save(self, state: State, epoch: int, step: int) -> Path:
        """Write the state reached before step `step` of `epoch`, then drop all but the last two files.

        Raises RunFailed when it cannot be written; the files saved before stay.
        """
        buffer = io.BytesIO()
        torch.save(
            {"format": checkpoint_format(self.kind), "version": VERSION, "epoch": epoch, "step": step, **state}, buffer
        )
        path = self.folder / f"{self.kind}-{epoch:04d}-{step:06d}.pt"
        write_whole(path, buffer.getvalue())
        for old in self.saved()[2:]:
            old.unlink()
        return path

    def saved(self) -> list[Path]:
        """Their files, newest first."""
        name = re.compile(rf"{self.kind}-(\d+)-(\d+)\.pt")
        found = [(name.fullmatch(path.name), path) for path in self.folder.glob(f"{self.kind}-*.pt")]
        placed = [((int(match[1]), int(match[2])), path) for match, path in found if match is not None]
        return [path for _, path in sorted(placed, reverse=True)]

    def set_aside(self, good: Path) -> None:
        """Rename those newer than a good one, or they would count among the two that are kept."""
        for path in self.saved():
            if path == good:
                return
            path.rename(path.with_suffix(_DAMAGED))

    def prepare(self) -> bool:
        """Make the folder and clear it of what a killed save left; whether it holds checkpoints."""
        self.folder.mkdir(exist_ok=True)
        for unfinished in self.folder.glob(f".{self.kind}-*"):
            unfinished.unlink()
        return bool(self.saved())

    def load_latest(self) -> tuple[State, Path, list[str]]:
        """The newest readable one, its path, and what is wrong with those passed over.

        Raises InputError when there is none.
        """
        problems: list[str] = []
        for path in self.saved():
            try:
                return load_checkpoint(path, self.kind), path, problems
            except InputError as error:
                problems.append(str(error))
        detail = "; ".join(problems) or "the run was stopped before the first checkpoint"
        raise NotResumable(f"{self.run_dir} contains no readable checkpoint ({detail}): start a new run")


def checkpoint_format(kind: str) -> str:
    """What a checkpoint of this kind says that it is."""
    return f"tfnas-{kind}-checkpoint"


def load_checkpoint(path: Path, kind: str) -> State:
    """Read one checkpoint onto the CPU. Raises InputError when it is missing, damaged or something else."""
    from tfnas.utils.tensor_file import UnreadableFile, load_plain

    try:
        state = load_plain(path)
    except UnreadableFile as error:
        raise InputError(f"{path} is damaged or not a checkpoint of this program: it {error.reason}") from error
    if not isinstance(state, dict) or state.get("format") != checkpoint_format(kind):
        raise InputError(f"{path} is not a {kind} checkpoint of this program")
    if state["version"] != VERSION:
        raise InputError(f"{path} has version {state['version']}, this program reads version {VERSION}")
    return dict(state)


def short_names(names: Sequence[str]) -> str:
    """The first names of classes, and a digest of all: what a checkpoint compares them by."""
    return f"{', '.join(names[:3])}, ... ({sha256(chr(10).join(names).encode()).hexdigest()[:16]})"
