"""What the checkpoints of a search hold, read back."""

from __future__ import annotations

from pathlib import Path

from tfnas.checkpoint import Checkpoints, State
from tfnas.latency.fitting.choice import Choice
from tfnas.searching.derive import choice_from
from tfnas.space import SearchSpace
from tfnas.space_file import space_from_json

KIND = "search"


def search_checkpoints(run_dir: Path) -> Checkpoints:
    """The checkpoints of a search in its run directory."""
    return Checkpoints(run_dir, KIND)


def space_of(state: State) -> SearchSpace:
    """The search space that a checkpoint was made in."""
    return space_from_json(state["space"])


def choice_of(state: State) -> Choice:
    """What the search had learned when the checkpoint was taken."""
    widths = [[len(index) for index in row] for row in state["active"]]
    return choice_from(space_of(state), state["num_classes"], state["parameters"], widths)
