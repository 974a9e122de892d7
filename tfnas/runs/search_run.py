"""Searches as their run directories have them: what a search had learned when a checkpoint was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from tfnas.core.choice import Choice
from tfnas.core.space import SearchSpace
from tfnas.runs.checkpoint import Checkpoints, State
from tfnas.spaces.mbconv.space_file import space_from_json

KIND = "search"
"""Of run directories and checkpoints."""


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
    return Checkpoints(run_dir, KIND)


def saved_space(state: State) -> SearchSpace:
    """The search space that a checkpoint was made in."""
    return space_from_json(state["space"])


def saved_choice(state: State) -> Choice:
    """What the search had learned when the checkpoint was taken."""
    widths = [[len(index) for index in row] for row in state["active"]]
    return choice_from(saved_space(state), state["num_classes"], state["parameters"], widths)
