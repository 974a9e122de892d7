"""The peak of live activations in closed form against a walk through the operators that a network really runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_structures import random_structure
from torch.utils._python_dispatch import TorchDispatchMode

import tfnas
from tfnas import zoo
from tfnas.core.units import peak_activations
from tfnas.nn.network import Network
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily, architecture_units
from tfnas.spaces.zen.structure_network import StructureNetwork

IN_PLACE = ("native_batch_norm", "relu", "silu", "sigmoid", "mul", "add", "view", "detach")
"""What may write over an input of the same size, and views."""


class OperatorTrace(TorchDispatchMode):
    """Every operator, the tensors that it reads and the first that it makes; all are kept, so that ids are unique."""

    def __init__(self):
        super().__init__()
        self.steps, self.tensors = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result[0] if isinstance(result, tuple | list) else result
        read = [value for value in args if isinstance(value, torch.Tensor)]
        self.tensors += [*read, made]
        self.steps.append((func.name().partition("::")[2], [id(value) for value in read], id(made), made.numel()))
        return result


def walked_peak(network, *shape):
    """Most numbers that are live at once: operators in order, every tensor dropped after the last that reads it."""
    image = torch.zeros(1, *shape)
    with torch.no_grad(), OperatorTrace() as trace:
        network.eval()(image)
    last_read = {read: number for number, step in enumerate(trace.steps) for read in step[1]}
    live, peak = {id(image): image.numel()}, 0
    for number, (name, reads, made, size) in enumerate(trace.steps):
        if not live.keys() & set(reads):  # a view of weights, a placeholder
            continue
        dropped = {read for read in reads if read in live and last_read[read] == number}
        reused = name.partition(".")[0] in IN_PLACE and any(live[read] == size for read in dropped)
        peak = max(peak, sum(live.values()) + (0 if reused else size))
        for read in dropped:
            del live[read]
        live[made] = size
    assert list(live) == [trace.steps[-1][2]], "only the logits are left"
    return peak


def check(structure, size, *, use_se=False, frames=None, num_classes=None):
    network = StructureNetwork(structure, num_classes=num_classes, use_se=use_se)
    shape = (structure.in_channels, *([] if frames is None else [frames]), size, size)
    units = structure.units(size, frames or 1, use_se=use_se)
    assert peak_activations(units, num_classes) == walked_peak(network, *shape), structure.to_text()


@pytest.mark.parametrize("notation", ["zennas", "tinynas"])
@pytest.mark.parametrize("use_se", [False, True])
def test_random_structures_of_every_block_type(notation, use_se):
    generator, seen = np.random.default_rng(5), set()
    for number in range(12):
        structure = random_structure(generator, notation, most_layers=2)
        seen |= {block.block_type for block in structure.blocks}
        size = int(generator.integers(8, 40))
        check(structure, size, use_se=use_se and notation == "zennas", num_classes=[None, 10, 3000][number % 3])
    assert len(seen) >= 4, seen


@pytest.mark.parametrize(("notation", "kind"), [("zennas", "idw"), ("zennas", "k1kxk1"), ("tinynas", "k1dwsek1")])
def test_networks_of_one_block_type(notation, kind):
    generator = np.random.default_rng(7)
    for _ in range(5):
        check(random_structure(generator, notation, kinds=[kind]), 20, use_se=notation == "zennas", num_classes=5)


def test_videos():
    generator = np.random.default_rng(9)
    for _ in range(5):
        check(random_structure(generator, "tinynas", video=True), 14, frames=3, num_classes=5)


@pytest.mark.parametrize("name", ["zennet_imagenet1k_flops400M_res224", "deepmad-29M-224"])
def test_published_networks(name):
    check(zoo.facts(name).structure, 64, num_classes=1000)


@pytest.mark.parametrize("name", ["digits", "cifar", "imagenet"])
def test_networks_of_mbconv_blocks(name):
    family, generator = MBConvFamily(tfnas.space(name), 10), np.random.default_rng(1)
    for _ in range(3):
        architecture = family.sample(generator)
        architecture = architecture.adapted(image_size=32, num_classes=10)
        peak = peak_activations(architecture_units(architecture), 10)
        assert peak == walked_peak(Network(architecture), 3, 32, 32)


def test_one_block_by_hand():
    """8 x 8 pixels: 3 channels, 4 by a stem, then a unit that keeps its input of 256 for the sum."""
    structure = tfnas.zoo.facts("init_XXBL_cifar").structure.parse("SuperConvK3BNRELU(3,4,1,1)SuperResK3K3(4,4,1,6,2)")
    stem, first, second = (3 + 4) * 64, (4 + 6 + 4) * 64, (4 + 4 + 4) * 64
    assert peak_activations(structure.units(8)) == max(stem, first, second) == 896
