"""What the tests on a GPU compare: a search step's losses and gradients, computed on one device or another.

The default tests compare the CPU with itself by the same functions, so that these are known to run.
"""

from __future__ import annotations

import torch
from made_learners import random_parameters, random_supernet
from small_search import small_config
from torch.nn import functional

from tfnas.searching.differentiable.search_setup import prepare
from tfnas.searching.differentiable.supernet_learner import architecture_loss, build_learner, weight_loss
from tfnas.supernet.supernet import Path

PATHS = (Path((0, 1, 0)), Path((1, 0, 1)))


def computed_on(device, folder, *, low_memory=False, amp=False):
    """Losses and gradients by name, of weights and architecture, on the CPU; random weights and active channels."""
    setup = prepare(small_config(folder, "run", device=device, low_memory=low_memory))
    learner = build_learner(setup)
    learner.amp = amp  # the command refuses it on a CPU
    made = random_supernet(learner.supernet.space, classes=10)
    learner.supernet.load_state_dict(made.state_dict())
    learner.supernet.set_active_channels(made.active_channels())
    learner.parameters.load_state_dict(random_parameters(learner.supernet.space).state_dict())
    pixels = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = learner.place(pixels, torch.arange(12) % 10)
    weights, correct = weight_loss(learner, *batch, PATHS)
    architecture, parts = architecture_loss(learner, *batch, 3.0, torch.Generator().manual_seed(1))
    found = {"weight loss": weights, "correct": correct, "architecture loss": architecture}
    found |= {f"part {place}": value for place, value in enumerate(parts)}
    for loss, module in ((weights, learner.supernet), (architecture, learner.parameters)):
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        named = zip(names, gradients, strict=True)
        found |= {f"gradient of {name}": gradient for name, gradient in named if gradient is not None}
    return {name: value.detach().cpu() for name, value in found.items()}


def check_equal(one, other, rtol=1e-9, atol=1e-11):
    """Raise AssertionError naming what differs."""
    assert one.keys() == other.keys()
    assert sum(name.startswith("gradient of stage") for name in one) >= 18  # both operations of three blocks
    for name, value in one.items():
        torch.testing.assert_close(
            other[name], value.to(other[name]), rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def check_near(exact, mixed):
    """Mixed precision: the loss to a few percent, and gradients that point where those of float32 do."""
    assert exact.keys() == mixed.keys()
    for name in ("weight loss", "architecture loss"):
        torch.testing.assert_close(mixed[name], exact[name], rtol=0.03, atol=0.0)
    assert all(value.dtype == torch.float32 for name, value in mixed.items() if name.startswith("gradient"))
    for part in ("gradient of stage", "gradient of log_alphas", "gradient of betas"):
        one, other = (
            torch.cat([value.flatten() for name, value in found.items() if name.startswith(part)])
            for found in (exact, mixed)
        )
        assert not torch.equal(one, other), f"{part}: nothing was computed in mixed precision"
        assert float(functional.cosine_similarity(one, other, dim=0)) > 0.99, part
