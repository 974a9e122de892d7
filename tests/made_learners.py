"""A tiny supernet with random weights and everything a search step needs, in double precision."""

from __future__ import annotations

import random

import torch
from tiny import tiny_contents, tiny_space

from tfnas.core.space import Operation
from tfnas.latency.cost_table import LatencyTable
from tfnas.searching.differentiable.architecture_parameters import ArchitectureParameters, operations_ms
from tfnas.searching.differentiable.search_config import Schedule
from tfnas.searching.differentiable.supernet_learner import make_learner
from tfnas.supernet.supernet import Supernet

CLASSES = 5


def varied_space():
    """The tiny space with every kind of operation: two kernels, two expansions, with and without SE."""
    return tiny_space(operations=tuple(Operation(k, e, se) for se in (False, True) for k in (3, 5) for e in (2, 4)))


def random_supernet(space, seed=0, classes=CLASSES):
    """All weights and biases normal, and random active channels in every operation."""
    generator = torch.Generator().manual_seed(seed)
    supernet = Supernet(space, classes)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    for number, index, operation in supernet.operations():
        low, high = space.width_range(space.blocks[number], space.operations[index])
        # below the largest, where it is free: some channels rest
        width = int(torch.randint(low, max(high, low + 1), (), generator=generator))
        operation.set_active(torch.randperm(high, generator=generator)[:width])
    return supernet


def random_parameters(space, seed=1):
    """Architecture parameters away from uniform."""
    generator = torch.Generator().manual_seed(seed)
    parameters = ArchitectureParameters(space)
    with torch.no_grad():
        for parameter in parameters.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).log_softmax(-1))
    return parameters


def random_learner(**schedule):
    """A learner on the tiny space; its target lies well below what it expects."""
    space = tiny_space()
    supernet, table = random_supernet(space), LatencyTable(tiny_contents(space, random.Random(0)))
    learner = make_learner(supernet, random_parameters(space), Schedule(**schedule), table, target_ms=1.5)
    learner.table_ms = operations_ms(space, table, supernet.widths())
    return learner


def random_batch(seed=2, size=6):
    """Images (size, 3, 8, 8) and labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.randint(CLASSES, (size,), generator=generator)


def snapshot(module):
    """Copies of all parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
