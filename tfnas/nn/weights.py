"""Weights in files, whoever saved them, whatever they are wrapped in and filed under: finding and loading them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.nn.network import LEFT_OUT, FeatureNetwork
from tfnas.utils.tensor_file import load_plain

KEYS = ("state_dict", "model", "network", "state_dict_ema", "model_ema")
"""What training programs file weights under. Where there are several, the first of this list is read."""

_DEEPEST = 4  # a damaged or forged document may hold itself
_MOST_NAMED = 8
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)+|(?<=\.)(?:_orig_mod\.)+")
_AVERAGED_STATES = "n_averaged"  # what AveragedModel has beside its network's entries


class WeightsWarning(UserWarning):
    """A file holds other weights than those that were read, too."""


def find_state(document: object, source: str) -> dict[str, Any]:
    """The state dict in what a file holds: itself, or under one of `KEYS`, with names as `plain_names` gives them.

    `source` is what messages call the file. Raises InputError where it holds no dict; warns (WeightsWarning) of other
    weights that it holds beside those, under a key of `KEYS` or under none.
    """
    for _ in range(_DEEPEST):
        entries = document if isinstance(document, Mapping) else {}
        named = [key for key in KEYS if isinstance(entries.get(key), Mapping)]
        beside = [name for name, value in entries.items() if _is_weight(value)]
        filed = [key for key in named if _holds_tensors(entries[key])] or ([] if beside else named[:1])
        if not filed:
            break
        if beside:
            warnings.warn(
                f"{source} contains other tensors ({', '.join(ascii(name)[1:-1] for name in beside[:_MOST_NAMED])}) in "
                f"addition to the weights under {filed[0]}, which are used",
                WeightsWarning,
                stacklevel=3,
            )
        if len(filed) > 1:
            warnings.warn(
                f"{source} contains weights under {' and under '.join(filed)}: those under {filed[0]} are used",
                WeightsWarning,
                stacklevel=3,
            )
        document = entries[filed[0]]
    if not isinstance(document, Mapping):
        raise InputError(
            f"{source} contains no weights: it is a {type(document).__name__}, not a dict of tensors by name"
        )
    return plain_names(document, source)


def _is_weight(value: object) -> bool:
    """Whether it may be one: best accuracies are tensors without dimensions, states of random numbers whole numbers."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _holds_tensors(entries: Mapping[Any, Any], depth: int = 0) -> bool:
    """Whether there are tensors in a dict, or under a key of `KEYS` in it: settings are filed under such names, too."""
    if any(isinstance(value, Tensor) for value in entries.values()):
        return True
    deeper = (entries.get(key) for key in KEYS if depth < _DEEPEST)
    return any(isinstance(value, Mapping) and _holds_tensors(value, depth + 1) for value in deeper)


def plain_names(state: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """The entries under the network's own names, without what wrappers put before them.

    Those are `module.` (DataParallel, DistributedDataParallel, AveragedModel) at the beginning and `_orig_mod.`
    (torch.compile) anywhere, in any order. Raises InputError where two entries would get one name.
    """
    found: dict[str, Any] = {}
    for name, value in state.items():
        plain = plain_name(str(name))
        if plain in found:
            raise InputError(f"{source} contains {plain} twice, with and without a wrapper's prefix")
        found[plain] = value
    if any(str(name) not in found for name in state):
        found.pop(_AVERAGED_STATES, None)
    return found


def plain_name(name: str) -> str:
    """The name of an entry without what wrappers put before it."""
    return _WRAPPERS.sub("", name)


def why_missing(found: Mapping[str, Any], wanted: Iterable[str]) -> str:
    """What to add to a refusal of names: the prefix that they have, or what there is in place of weights."""
    names = list(wanted)
    start = next((name.removesuffix(names[0]) for name in found if name.endswith(f".{names[0]}")), None)
    if start is not None and all(start + name in found for name in names):
        return f". Its names begin with {start!r}: save the state dict of that part alone"
    if found and not any(isinstance(value, Tensor) for value in found.values()):
        held = ", ".join(sorted(ascii(name)[1:-1] for name in found)[:_MOST_NAMED])
        return f". It contains no tensors, but {held}; weights are looked for under {', '.join(KEYS)}"
    return ""


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
    refusal = f"{source} contains the weights of another architecture"
    wanted = {plain_name(name): (name, own) for name, own in network.state_dict().items()}
    for name, (own_name, own) in wanted.items():
        if name not in found:
            missing = f"{name} is missing, which has the shape {_shape(own)} in the network"
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
        raise InputError(f"{refusal}: it contains {surplus[0]}, which the network does not have")
    network.load_state_dict(fitting)


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(size) for size in tensor.shape) or "of one number"
