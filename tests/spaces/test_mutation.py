"""Mutations: always valid, and everything that may be chosen can change."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import tfnas
from tfnas import InputError, zoo
from tfnas.spaces.families import parse_architecture
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.zen_family import MutationRules, StructureArchitecture, ZenFamily, mutate_structure

SHAPE = ("kernel", "out_channels", "stride", "layers", "bottleneck", "expansion", "block_type")
NUMBERS = (*SHAPE, "weight_bits", "activation_bits")
IMAGES = [name for name in zoo.names() if not zoo.facts(name).structure.is_video]


def chain(family, start, steps, seed=0):
    generator, found = np.random.default_rng(seed), [start]
    for _ in range(steps):
        found.append(family.mutate(found[-1], generator))
    return found


@pytest.mark.parametrize("name", ["digits", "cifar", "imagenet"])
def test_mutants_of_a_space_are_of_the_space_and_one_choice_away(name):
    space = tfnas.space(name)
    family = MBConvFamily(space, 10)
    found = chain(family, family.sample(np.random.default_rng(3)), 400)
    changed = Counter()
    for before, after in pairwise(found):
        old, new = family.genes(before), family.genes(after)
        assert after != before and after.num_classes == 10
        if old.depths != new.depths:
            changed["depth"] += 1
            assert sum(abs(a - b) for a, b in zip(old.depths, new.depths, strict=True)) == 1
        else:
            places = [
                index for index, pair in enumerate(zip(before.blocks, after.blocks, strict=True)) if pair[0] != pair[1]
            ]
            assert len(places) == 1
            changed["operation" if old.operations != new.operations else "width"] += 1
            changed["block", places[0]] += 1
    assert all(changed[kind] > 40 for kind in ("operation", "depth", "width")), changed
    assert {len(after.stages[index]) for after in found for index in range(len(space.stages))} >= {1, 2}


def test_a_space_of_one_network_has_no_mutants():
    space = dataclasses.replace(tfnas.space("digits"), width_multiple=1)
    stages = tuple(dataclasses.replace(stage, min_blocks=stage.blocks) for stage in space.stages)
    one = dataclasses.replace(space, stages=stages, operations=(tfnas.space("digits").operations[0].parse("k3_e1"),))
    family = MBConvFamily(one, 10)
    only = family.sample(np.random.default_rng(0))
    assert family.mutate(only, np.random.default_rng(0)) == only == family.sample(np.random.default_rng(9))


def test_an_architecture_of_another_space_is_refused():
    other = MBConvFamily(tfnas.space("cifar"), 10).sample(np.random.default_rng(0))
    with pytest.raises(InputError, match="its image_size is 32, the space's is 16"):
        MBConvFamily(tfnas.space("digits"), 10).mutate(other, np.random.default_rng(0))


@pytest.mark.parametrize("name", IMAGES)
def test_mutants_of_structures_are_valid_and_one_number_away(name):
    known = zoo.facts(name)
    family = ZenFamily(StructureArchitecture(known.structure, known.resolution or 320))
    found = chain(family, family.initial, 60)
    for before, after in pairwise(found):
        assert parse_architecture(after.to_text()) == after  # valid: every check of a structure is made again
        pairs = zip(before.structure.blocks, after.structure.blocks, strict=True)
        different = [pair for pair in pairs if dataclasses.replace(pair[0], in_channels=pair[1].in_channels) != pair[1]]
        assert len(different) == 1
        old, new = different[0]
        names = {number for number in NUMBERS if getattr(old, number) != getattr(new, number)}
        assert len(names - {"weight_bits", "activation_bits"}) <= 1 and names and "stride" not in names
        assert after.structure.in_channels == before.structure.in_channels
        assert math.prod(block.stride for block in after.structure.blocks) == known.structure.total_stride


@pytest.mark.parametrize(("name", "numbers"), [
    ("init_XXBL_cifar", {"kernel", "out_channels", "layers", "bottleneck", "block_type"}),
    ("init_IDW_imagenet", {"kernel", "out_channels", "layers", "bottleneck", "expansion"}),
    ("deepmad-29M-224", {"kernel", "out_channels", "layers", "bottleneck"}),
    ("mixed7d0G", {"kernel", "out_channels", "layers", "bottleneck", "weight_bits", "activation_bits"}),
])  # fmt: skip
def test_every_number_of_every_block_can_change(name, numbers):
    structure, generator = zoo.facts(name).structure, np.random.default_rng(0)
    changed: dict[int, set[str]] = {}
    for _ in range(1500):
        mutant = mutate_structure(structure, 224, MutationRules(), generator)
        for index, (old, new) in enumerate(zip(structure.blocks, mutant.blocks, strict=True)):
            changed.setdefault(index, set()).update(
                number for number in NUMBERS if getattr(old, number) != getattr(new, number)
            )
    for index, block in enumerate(structure.blocks):
        if block.block_type == "conv":
            assert changed[index] == ({"out_channels"} if block.kernel == 1 else {"out_channels", "kernel"}), index
        else:
            assert changed[index] == numbers, index


def test_widths_kernels_and_depths_stay_within_the_rules():
    rules = MutationRules(largest_width=64, most_layers=3, kernels=(3, 5), layer_steps=(-1, 1))
    family = ZenFamily(rules=rules)
    for mutant in chain(family, family.initial, 500)[1:]:
        for block, old in zip(mutant.structure.blocks, family.initial.structure.blocks, strict=True):
            assert 8 <= block.out_channels <= max(64, old.out_channels) and block.out_channels % 8 == 0
            assert block.kernel in ({1, 3, 5} if block.block_type == "conv" else {3, 5})
            assert 1 <= block.layers <= 3


def test_kernels_do_not_outgrow_their_maps():
    """A 7 x 7 kernel needs a map of 11 pixels, a 5 x 5 one of 8; 3 x 3 ones are always there."""
    family = ZenFamily()
    small = family.initial.adapted(image_size=16, num_classes=10)
    for mutant in chain(family, small, 300)[1:]:
        seen = {unit.block: unit.resolution_in for unit in reversed(mutant.structure.units(16))}
        for number, block in enumerate(mutant.structure.blocks):
            assert block.kernel <= 3 or seen[number] >= 1.5 * block.kernel
