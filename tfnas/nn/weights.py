"""Giving a network weights that were saved elsewhere, ours or those of the TF-NAS authors' program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tfnas.errors import InputError
from tfnas.nn.features import LEFT_OUT, FeatureNetwork
from tfnas.tensor_file import load_plain

_PREFIX = "module."  # of weights that were saved inside DataParallel or DistributedDataParallel


def load_weights(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Give a network the weights in a file: a `model.pt`, the authors' `checkpoint.pth.tar`, or a bare state dict.

    Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
    """
    document = load_plain(Path(path))
    if isinstance(document, dict) and isinstance(document.get("state_dict"), dict):
        document = document["state_dict"]
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no weights: it is a {type(document).__name__}, not a dict of tensors by name")
    load_state(network, document, str(path))


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Give a network a state dict, with or without the prefix `module.`; `source` is what messages call it.

    A FeatureNetwork takes from a whole network's state what it has.
    Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
    """
    found = {str(name).removeprefix(_PREFIX): value for name, value in state.items()}
    fitting: dict[str, Tensor] = {}
    refusal = f"{source} holds the weights of another architecture"
    for name, own in network.state_dict().items():
        if name not in found:
            raise InputError(f"{refusal}: it has no {name}, which the network has with shape {_shape(own)}")
        value = found[name]
        if not isinstance(value, Tensor):
            raise InputError(f"{source}: {name} is a {type(value).__name__}, not a tensor")
        if value.shape != own.shape:
            raise InputError(f"{refusal}: {name} has the shape {_shape(value)}, the network's has {_shape(own)}")
        fitting[name] = value
    surplus = sorted(name for name in found if name not in fitting)
    if isinstance(network, FeatureNetwork):
        surplus = [name for name in surplus if not name.startswith(LEFT_OUT)]
    if surplus:
        raise InputError(f"{refusal}: it has {surplus[0]}, which the network has not")
    network.load_state_dict(fitting)


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(size) for size in tensor.shape) or "of one number"
