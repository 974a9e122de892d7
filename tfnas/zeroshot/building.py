"""This package's own networks, built for a score or taken apart again."""

from __future__ import annotations

import torch
from torch import nn

from tfnas.architecture import Architecture
from tfnas.nn.network import Network
from tfnas.structures.network import StructureNetwork
from tfnas.structures.structure import Structure


def described(module: nn.Module) -> Architecture | Structure | None:
    """What one of this package's own networks was made from; None for any other module."""
    if type(module) is Network:
        return module.architecture
    if type(module) is StructureNetwork:
        return module.structure
    return None


def build(description: Architecture | Structure, *, num_classes: int, residuals: bool) -> nn.Module:
    """The network of a description, with weights of no meaning. An architecture has classes of its own."""
    with torch.device("meta"):  # no time for weights that are drawn again, and no number from the global generator
        network: nn.Module
        if isinstance(description, Architecture):
            network = Network(description, residuals=residuals)
        else:
            network = StructureNetwork(description, num_classes=num_classes, residuals=residuals)
    return network.to_empty(device="cpu")


def rebuild(module: nn.Module, *, residuals: bool) -> nn.Module:
    """A network like this package's own `module`, with or without shortcuts, with weights of no meaning."""
    with torch.device("meta"):
        network: nn.Module
        if isinstance(module, Network):
            network = Network(
                module.architecture, num_classes=module.classifier.linear.out_features, residuals=residuals
            )
        else:
            assert isinstance(module, StructureNetwork)
            network = StructureNetwork(
                module.structure,
                num_classes=None if module.classifier is None else module.classifier.out_features,
                use_se=module.use_se,
                residuals=residuals,
                batch_norm=module.batch_norm,
            )
    return network.to_empty(device="cpu")
