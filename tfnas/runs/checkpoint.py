"""The saved state of a run: plain tensors and numbers in a file that is written whole, checked when read, run never.

The last two are kept (`checkpoints/<kind>-<epoch>-<step>.pt`), so that a damaged one costs minutes, not the run. That
of a search says what it had learned.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tfnas.core.choice import Choice
from tfnas.core.errors import InputError, NotResumable
from tfnas.core.space import SearchSpace
from tfnas.spaces.mbconv.space_file import space_from_json
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


# ---- of searches ------------------------------------------------------------------------------------------------

SEARCH_KIND = "search"
"""Of their run directories and checkpoints."""
EVOLVE_KIND = "evolve"
"""The same of an evolutionary search."""
BEST = "best"
"""In a checkpoint of an evolutionary search: the text of its best network."""


def choice_from(
    space: SearchSpace, num_classes: int, parameters: Mapping[str, Tensor], widths: Sequence[Sequence[int]]
) -> Choice:
    """The choice in the state of ArchitectureParameters and in the widths (blocks, operations)."""
    betas = [parameters[f"betas.{stage}"].cpu().double() for stage in range(len(space.stages))]
    return Choice(
        space=space,
        num_classes=num_classes,
        log_alphas=parameters["log_alphas"].cpu().double().numpy(),
        log_depths=tuple(values.log_softmax(0).numpy() for values in betas),
        widths=np.array(widths, dtype=np.int64),
    )


def search_checkpoints(run_dir: Path) -> Checkpoints:
    """The checkpoints of a search in its run directory."""
    return Checkpoints(run_dir, SEARCH_KIND)


def evolve_checkpoints(run_dir: Path) -> Checkpoints:
    """The checkpoints of an evolutionary search in its run directory."""
    return Checkpoints(run_dir, EVOLVE_KIND)


def saved_space(state: State) -> SearchSpace:
    """The search space that a checkpoint was made in."""
    return space_from_json(state["space"])


def saved_choice(state: State) -> Choice:
    """What the search had learned when the checkpoint was taken."""
    widths = [[len(index) for index in row] for row in state["active"]]
    return choice_from(saved_space(state), state["num_classes"], state["parameters"], widths)
