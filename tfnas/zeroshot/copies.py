"""Networks that a score may do with as it likes: private copies of what a caller hands in."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from tfnas.device import named_device
from tfnas.errors import InputError
from tfnas.zeroshot.initialise import batch_norms
from tfnas.zeroshot.options import ScoreOptions

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)


@contextmanager
def undisturbed(options: ScoreOptions) -> Iterator[None]:
    """Run the body with gradients on, and give the global generators back as they were."""
    device = named_device(options.device)
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(options.seed)  # for modules that draw numbers in their forward pass
        with torch.autocast(device.type, enabled=False):
            yield


def private_copy(module: nn.Module) -> nn.Module:
    """A copy without the hooks, which would tell their owner of passes that are not theirs.

    Raises InputError where the module cannot be copied, and where its weights are made by hooks or parametrizations, so
    that they cannot be drawn.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    memo: dict[int, Any] = {}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part) or any(map(_torchs_own, part._forward_pre_hooks.values())):
            raise InputError(
                f"{name} ({type(part).__name__}) makes its weights by a parametrization, so they cannot be drawn anew: "
                "score the network without it"
            )
        for kind in _HOOKS:
            memo[id(getattr(part, kind))] = OrderedDict()
    try:
        copied = copy.deepcopy(module, memo)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{type(module).__name__} cannot be copied, and must not be changed: {error}") from error
    assert isinstance(copied, nn.Module)
    return copied


def _torchs_own(hook: object) -> bool:
    """Whether a hook is PyTorch's and makes a weight (such as weight norm's), and no observer."""
    return type(hook).__module__.startswith("torch.nn.utils.")


def prepared(network: nn.Module, options: ScoreOptions) -> nn.Module:
    """The network on the device, in the precision, with all gradients on; batch norms train, dropout does not."""
    network.to(device=named_device(options.device), dtype=getattr(torch, options.dtype))
    network.requires_grad_(True).eval()
    for norm in batch_norms(network):
        norm.train()
        if norm.running_var is None:
            norm.track_running_stats = True
            like = next(network.parameters())
            norm.running_mean = torch.zeros(norm.num_features, device=like.device, dtype=like.dtype)
            norm.running_var = torch.ones(norm.num_features, device=like.device, dtype=like.dtype)
            norm.num_batches_tracked = torch.zeros((), device=like.device, dtype=torch.long)
    return network


def without_batch_norm(network: nn.Module) -> nn.Module:
    """The network with every batch norm replaced by the identity, in place."""
    norms = set(batch_norms(network))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child in norms:
                setattr(module, name, nn.Identity())
    return network
