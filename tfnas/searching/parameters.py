"""What the search learns about the architecture: operation log-probabilities per block, depth logits per stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfnas.space import SearchSpace


class ArchitectureParameters(nn.Module):
    """`log_alphas` is (blocks, operations), initially uniform; `betas` has a vector per stage, initially zero.

    TF-NAS, sections 3.2 and 3.3.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        uniform = torch.zeros(len(space.blocks), len(space.operations)).log_softmax(1)
        self.log_alphas = nn.Parameter(uniform)
        self.betas = nn.ParameterList(nn.Parameter(torch.zeros(len(choices))) for choices in space.depth_choices)

    def depth_weights(self) -> tuple[Tensor, ...]:
        """Depth probabilities: softmax(betas) of every stage."""
        return tuple(betas.softmax(0) for betas in self.betas)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Make log_alphas log-probabilities again after an update. The shift of betas leaves their softmax as it is."""
        for parameter in self.parameters():
            parameter.copy_(parameter.log_softmax(-1))
