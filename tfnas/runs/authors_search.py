"""Search checkpoints of the TF-NAS authors' program (`searched_model_EE.pth.tar`).

Such a file is a dict of `state_dict` (all weights at maximum width, `log_alphas` per block, `betas` per stage) and
`mc_mask_dddict` ([stage][block][operation index] -> 0/1 tensor of the maximum width). PyTorch's zip form and the older
one both load. Nothing in a file is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tfnas.core.choice import Choice
from tfnas.core.errors import InputError
from tfnas.core.space import SearchSpace
from tfnas.nn.weights import plain_names

_MASKS = "mc_mask_dddict"


@dataclass(frozen=True, eq=False)
class AuthorsSearch:
    """A search checkpoint of the authors' program: `state` under its own names, and the masks of widths."""

    source: str
    state: Mapping[str, Tensor]
    masks: Mapping[str, Mapping[str, Mapping[int, Tensor]]]

    @classmethod
    def from_document(cls, document: Any, source: str) -> AuthorsSearch:
        """The checkpoint in what `load_plain` gave. Raises InputError saying what is missing."""
        if not isinstance(document, dict) or not isinstance(document.get("state_dict"), dict):
            raise InputError(f"{source} is not a search checkpoint: it contains no state_dict")
        if not isinstance(document.get(_MASKS), dict):
            raise InputError(
                f"{source} is not a search checkpoint: it contains no {_MASKS}. "
                "A trained network's architecture is in the model.config that it was trained with: give that"
            )
        state = plain_names(document["state_dict"], source)
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise InputError(f"{source}: state_dict entry {name} is a {type(value).__name__}, not a tensor")
        return cls(source, state, document[_MASKS])

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return len(self._tensor("classifier.linear.bias"))

    def choice(self, space: SearchSpace) -> Choice:
        """What the search had learned. Raises InputError where the file is not for this space, or for a larger one."""
        try:
            self._refuse_unknown_blocks(space)
            return Choice(
                space=space,
                num_classes=self.num_classes,
                log_alphas=np.array(
                    [_log_probabilities(self._tensor(f"{place.name}.log_alphas")) for place in space.blocks]
                ),
                log_depths=tuple(
                    _log_probabilities(self._tensor(f"stage{number}.betas"))
                    for number in range(1, len(space.stages) + 1)
                ),
                widths=np.array([[len(active) for active in row] for row in self.active_channels(space)]),
            )
        except ValueError as error:  # InputError among them; numpy's for rows of different lengths
            raise InputError(f"{self.source} is not of space {space.name}: {error}") from error

    def active_channels(self, space: SearchSpace) -> list[list[Tensor]]:
        """Indices of the active channels of every operation: [blocks][operations]."""
        rows = []
        for place in space.blocks:
            stage, block = place.name.split(".")
            masks = [self._mask(stage, block, index) for index, _ in enumerate(space.operations)]
            rows.append([mask.flatten().nonzero().flatten() for mask in masks])
        return rows

    def _refuse_unknown_blocks(self, space: SearchSpace) -> None:
        """Refuse blocks and stages that the space has not: what was learned of them would be left unread."""
        known = {f"{place.name}.log_alphas" for place in space.blocks}
        known |= {f"stage{number}.betas" for number in range(1, len(space.stages) + 1)}
        for name in self.state:
            if name.endswith((".log_alphas", ".betas")) and name not in known and known <= set(self.state):
                raise InputError(f"state_dict has {name}, which the space has not")

    def _tensor(self, name: str) -> Tensor:
        if name not in self.state:
            raise InputError(f"state_dict has no {name}")
        return self.state[name]

    def _mask(self, stage: str, block: str, index: int) -> Tensor:
        try:
            mask = self.masks[stage][block][index]
        except (LookupError, TypeError) as error:
            raise InputError(f"{_MASKS} has no entry {stage}, {block}, {index}") from error
        if not isinstance(mask, Tensor) or not ((mask == 0) | (mask == 1)).all():
            raise InputError(f"{_MASKS} at {stage}, {block}, {index} must be a tensor of zeros and ones")
        return mask


def _log_probabilities(values: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The vector as log-probabilities: theirs are up to rounding already, except for betas before the first step."""
    return np.asarray(values.double().flatten().log_softmax(0))
