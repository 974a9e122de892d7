"""Weights as the original programs publish them: what they call each layer of a structure's network.

ZenNAS wraps every layer in a `netblock` and numbers the layers of a unit, activations included; TinyNAS names them by
their place. Both save BatchNorm's entries under PyTorch's own names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from tfnas.errors import InputError
from tfnas.nn.state_dicts import find_state, why_missing
from tfnas.nn.weights import load_state
from tfnas.structures.layers import ResidualUnit
from tfnas.structures.network import StructureNetwork
from tfnas.tensor_file import load_plain

_ZENNAS_SQUEEZE = {"conv1": "1", "norm1": "2", "conv2": "4", "norm2": "5"}
_QUANTIZER = ("weightq", "alpha", "scalar", "s")  # what TinyNAS's quantised convolutions save beside their weights


def published_names(network: StructureNetwork) -> dict[str, str]:
    """The published name of every entry of the network's state dict.

    Raises InputError for a network without batch norms: no weights of such are published.
    """
    if not network.batch_norm:
        raise InputError("no weights are published for networks without batch norms")
    modules = dict(_modules(network))
    names = {}
    for name in network.state_dict():
        module, _, entry = name.rpartition(".")
        names[name] = f"{modules[module]}.{entry}"
    return names


def load_published(network: StructureNetwork, source: str | os.PathLike[str] | Mapping[str, Tensor]) -> None:
    """Give a network published weights: a file as `load_weights` takes it, or what such a file holds.

    A classifier is left out where the network has none, and so are the numbers that quantise, because the network
    computes in floats.

    Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
    """
    document = source if isinstance(source, Mapping) else load_plain(Path(source))
    where = "the state dict" if isinstance(source, Mapping) else str(source)
    found = find_state(document, where)
    names = published_names(network)
    for own, name in names.items():
        if name not in found:
            refusal = f"{where} holds the weights of another structure: it has no {name} (here {own})"
            raise InputError(refusal + why_missing(found, names.values()))
    ours = {name: own for own, name in names.items()}
    state = {ours.get(name, name): value for name, value in found.items() if not _left_out(name, network)}
    load_state(network, state, where)


def _left_out(name: str, network: StructureNetwork) -> bool:
    if network.classifier is None and name.startswith("fc_linear."):
        return True
    quantized = any(block.quantized for block in network.structure.blocks)
    return quantized and name.rpartition(".")[2] in _QUANTIZER


def _modules(network: StructureNetwork) -> Iterator[tuple[str, str]]:
    """Our name and the published name of every module that has weights."""
    unit_modules = _zennas_unit if network.structure.notation == "zennas" else _tinynas_unit
    for block_number, (block, written) in enumerate(zip(network.blocks, network.structure.blocks, strict=True)):
        assert isinstance(block, nn.Sequential)
        for number, unit in enumerate(block):
            assert isinstance(unit, ResidualUnit)
            for ours, theirs in unit_modules(unit, block_number, number, written.family == "conv"):
                yield f"blocks.{block_number}.{number}.{ours}", theirs
    yield "classifier", "fc_linear.netblock" if network.structure.notation == "zennas" else "fc_linear"


def _zennas_unit(unit: ResidualUnit, block: int, number: int, is_conv: bool) -> Iterator[tuple[str, str]]:
    layers = [name for name, _ in unit.body.named_children()]
    # A plain block is one list of layers; in the others a unit and the activation after it are two items of a list.
    outer = f"module_list.{block}" if is_conv else f"module_list.{block}.module_list.{2 * number}"
    first = number * (len(layers) + 1) if is_conv else 0
    for place, name in enumerate(layers, first):
        theirs = f"{outer}.module_list.{place}.netblock"
        if name == "squeeze_excite":
            yield from ((f"body.{name}.gate.{layer}", f"{theirs}.{key}") for layer, key in _ZENNAS_SQUEEZE.items())
        else:
            yield f"body.{name}", theirs
    yield "shortcut.conv", f"{outer}.proj.0"
    yield "shortcut.norm", f"{outer}.proj.1"


def _tinynas_unit(unit: ResidualUnit, block: int, number: int, is_conv: bool) -> Iterator[tuple[str, str]]:
    if is_conv:
        yield "body.conv1", f"block_list.{block}.conv1"
        yield "body.norm1", f"block_list.{block}.bn1"
        return
    outer = f"block_list.{block}.block_list.{number}"
    for place in range(1, len(unit.body) + 1):
        yield f"body.conv{place}", f"{outer}.conv{place}.conv1"
        yield f"body.norm{place}", f"{outer}.conv{place}.bn1"
    for place in (1, 2):
        yield f"body.squeeze_excite.gate.conv{place}", f"{outer}.se2.conv{place}.conv1"
        yield f"body.squeeze_excite.gate.norm{place}", f"{outer}.se2.conv{place}.bn1"
    yield "shortcut.conv", f"{outer}.residual_proj.conv1"
    yield "shortcut.norm", f"{outer}.residual_proj.bn1"
