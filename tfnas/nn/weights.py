"""Giving a network weights that were saved elsewhere, ours or those of the TF-NAS authors' program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tfnas.errors import InputError
from tfnas.nn.features import LEFT_OUT, FeatureNetwork
from tfnas.nn.state_dicts import find_state, plain_name, plain_names, why_missing
from tfnas.tensor_file import load_plain


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Give a network the weights in a file: a `model.pt`, the authors' `checkpoint.pth.tar`, or a state dict.

    The state dict may stand alone or under a key of `state_dicts.KEYS`, and may be that of a wrapped network, see
    `state_dicts.plain_names`. Raises InputError naming the first layer that does not fit, with both shapes; the network
    is then unchanged. Warns (WeightsWarning) of a file with several state dicts.
    """
    load_state(network, find_state(load_plain(Path(path)), str(path)), str(path))


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Give a network a state dict, that of a wrapped network too; `source` is what messages call it.

    A FeatureNetwork takes from a whole network's state what it has.
    Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
    """
    found = plain_names(state, source)
    fitting: dict[str, Tensor] = {}
    refusal = f"{source} holds the weights of another architecture"
    wanted = {plain_name(name): (name, own) for name, own in network.state_dict().items()}
    for name, (own_name, own) in wanted.items():
        if name not in found:
            missing = f"it has no {name}, which the network has with shape {_shape(own)}"
            raise InputError(f"{refusal}: {missing}{why_missing(found, wanted)}")
        value = found[name]
        if not isinstance(value, Tensor):
            raise InputError(f"{source}: {name} is a {type(value).__name__}, not a tensor")
        if value.shape != own.shape:
            raise InputError(f"{refusal}: {name} has the shape {_shape(value)}, the network's has {_shape(own)}")
        fitting[own_name] = value
    surplus = sorted(name for name in found if name not in wanted)
    if isinstance(network, FeatureNetwork):
        surplus = [name for name in surplus if not name.startswith(LEFT_OUT)]
    if surplus:
        raise InputError(f"{refusal}: it has {surplus[0]}, which the network has not")
    network.load_state_dict(fitting)


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(size) for size in tensor.shape) or "of one number"
