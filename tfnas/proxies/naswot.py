"""NASWOT: how different the activation patterns of the images in a batch are.

    score = ln det K,  K[i, j] = number of activations that are on for both images or off for both

Source: Mellor et al., Neural Architecture Search without Training (ICML 2021, arXiv 2006.04647), which takes real
images (`images`), the network with its shortcuts, and every ReLU. Activations that are no ReLU count as on where
their input is above 0. K is batch x batch, so scores at different batch sizes cannot be compared.

Variant `zennas` is what the ZenNAS program computes: no shortcuts, standard normal weights, noise for images, and
the ReLUs of squeeze-and-excite left out. The program also adds one more set of hooks with every call on the same
network, so that its r-th call gives batch * ln r more; that is not copied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfnas.proxies.forward_passes import GATES, hook_activations
from tfnas.proxies.score import Score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork


@torch.no_grad()
def measure(scored: ScoredNetwork, options: ScoreOptions) -> float:
    """See the module."""
    as_program = SCORE.chosen_variant(options.variant) == "zennas"
    rule = "normal" if as_program else "kaiming"
    network, generator = scored.initialised(options, rule, residuals=not as_program)
    images = scored.images(options, generator, given=not as_program)
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def see(inputs: Tensor) -> None:
        kernel.add_(shared_activations(inputs.flatten(1) > 0))

    kinds: tuple[type[nn.Module], ...] = (nn.ReLU,) if as_program else GATES
    with hook_activations(network, see, kinds, score=SCORE.name, squeeze_excite=not as_program):
        network(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def shared_activations(codes: Tensor) -> Tensor:
    """(images, images): at how many places two codes are equal, of codes (images, places). Exact below 2^24 places."""
    on = codes.float()
    both_on = on @ on.T
    counts = both_on.diagonal()
    return (2 * both_on + codes.shape[1] - counts[:, None] - counts[None, :]).double()


SCORE = Score(
    name="naswot",
    higher_is_better=True,
    cost="forward",
    needs=frozenset({"images"}),
    summary="ln det of the matrix of shared activation patterns between images (NASWOT, ICML 2021)",
    variants=("default", "zennas"),
    measure=measure,
)
