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
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily
from tfnas.spaces.zen.zoo_networks import zoo_architecture


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
    genes = [family.genes(architecture) for architecture in found]
    for (before, old), (after, new) in pairwise(zip(found, genes, strict=True)):
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


@pytest.mark.parametrize("name", zoo.names())
def test_mutants_of_structures_are_valid(name):
    """Of every structure of the zoo that belongs to a space: every check of a structure is made again."""
    known = zoo.facts(name)
    family = ZenFamily(StructureArchitecture(known.structure, known.resolution or 320))
    for before, after in pairwise(chain(family, family.initial, 60)):
        assert parse_architecture(after.to_text()) == after != before
        assert after.structure.in_channels == before.structure.in_channels
        assert math.prod(block.stride for block in after.structure.blocks) == known.structure.total_stride
        for old, block in pairwise(after.structure.blocks):
            assert block.in_channels == old.out_channels


def test_mutants_of_structures_change_as_many_blocks_as_asked_for():
    for name in ("init_XXBL_cifar", "init:classification/R50_FLOPs"):
        family = ZenFamily(zoo_architecture(name))
        for changes in (1, 2, 3):
            generator, seen = np.random.default_rng(changes), set()
            for _ in range(60):
                pairs = zip(
                    family.initial.structure.blocks,
                    family.mutate(family.initial, generator, changes=changes).structure.blocks,
                    strict=True,
                )
                seen.add(sum(dataclasses.replace(new, in_channels=old.in_channels) != old for old, new in pairs))
            assert max(seen) == changes and (min(seen) == changes or "R50" in name)
