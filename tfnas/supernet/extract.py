"""From a supernet to the stand-alone network of one of its architectures, with the weights that it inherits.

The copy is exact: while its batch norms use the statistics of the batch, the network computes what the supernet
computes along the architecture's path. For use in eval mode it needs running statistics, which
`estimate_batch_norm` gives it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.nn.network import Network
from tfnas.nn.weights import load_state
from tfnas.spaces.mbconv.space_file import space_from_json
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import Supernet, operations_and_depths

_FIXED_PARTS = ("first_stem", "second_stem", "feature_mix_layer", "classifier")


def extract_network(supernet: Supernet, architecture: Architecture) -> Network:
    """The network of an architecture with the supernet's weights, in training mode, on the supernet's device.

    A block takes the active channels of its operation; where the architecture gives it another width, those that
    `ElasticMBConv.set_width` keeps. Batch norm is fresh: weight 1, bias 0, no statistics yet. The supernet and the
    global random generator are not changed. Raises InputError where the architecture is none of the supernet's.
    """
    _check_fixed_parts(supernet, architecture)
    operations, _ = operations_and_depths(supernet.space, architecture)
    weights: dict[str, Tensor] = {
        f"{part}.{name}": weight
        for part in _FIXED_PARTS
        for name, weight in supernet.get_submodule(part).named_parameters()
    }
    for place in architecture.blocks:
        number = supernet.space.first_blocks[place.stage] + place.position
        operation = supernet.block_operations(number)[operations[number]]
        for name, weight in _weights_at(operation, place.block.mid_channels).items():
            weights[f"stage{place.stage + 1}.{place.position}.{name}"] = weight
    with torch.device("meta"):
        network = Network(architecture)
    like = supernet.classifier.linear.weight
    network = network.to(like.dtype).to_empty(device=like.device)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            weights.update({f"{name}.{entry}": value for entry, value in module.state_dict().items()})
    load_state(network, weights, "the supernet")
    return network


@torch.no_grad()
def estimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by their plain averages over batches of training images.

    `batches` gives images (N, 3, H, W) on the network's device; each batch counts the same, whatever its size. Dropout
    and drop-connect are off meanwhile; modes and momenta are afterwards as before, and no weight changes.
    Raises InputError where there is no batch; the old statistics are then lost.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    modes = {module: module.training for module in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's sign for a cumulative average
        norm.train()
    num_batches = 0
    try:
        for images in batches:
            network(images)
            num_batches += 1
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    if not num_batches:
        raise InputError("the statistics of batch norm need one batch of images at least, there was none")


def supernet_from_state(state: Mapping[str, Any]) -> Supernet:
    """The supernet in a search checkpoint, with its active channels, on the CPU.

    Reads the entries `space`, `num_classes`, `supernet` and `active`; the global random generator is not changed.
    Raises InputError where one is missing or they do not fit each other.
    """
    missing = [name for name in ("space", "num_classes", "supernet", "active") if name not in state]
    if missing:
        raise InputError(f"this is no checkpoint of a search: it has no entry {missing[0]}")
    with torch.random.fork_rng(devices=[]):
        supernet = Supernet(space_from_json(state["space"]), state["num_classes"])
    load_state(supernet, state["supernet"], "the checkpoint")
    supernet.set_active_channels(state["active"])
    return supernet


def _check_fixed_parts(supernet: Supernet, architecture: Architecture) -> None:
    space = supernet.space
    for part in ("first_stem", "second_stem", "feature_mix"):
        own, asked = getattr(space, part), getattr(architecture, part)
        if own != asked:
            raise InputError(
                f"the {part} of space {space.name} is {own.to_text()}, the architecture's {asked.to_text()}"
            )
    num_classes = supernet.classifier.linear.out_features
    if architecture.num_classes != num_classes:
        raise InputError(f"the supernet has {num_classes} classes, the architecture {architecture.num_classes}")


def _weights_at(operation: ElasticMBConv, width: int) -> dict[str, Tensor]:
    """Views or copies of an operation's weights, of the channels that are active at a width, by name."""
    if operation.width != width:
        operation = copy.deepcopy(operation)
        operation.set_width(width)
    slices = operation.active_slices()
    return {
        name: weight.index_select(*slices[weight]) if weight in slices else weight
        for name, weight in operation.named_parameters()
    }
