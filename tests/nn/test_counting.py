"""Counting by hooks on a network and in closed form from an architecture are two implementations of one definition."""

import itertools
import random

import pytest
import torch
from tiny import tiny_space

import tfnas
from tfnas.core.errors import InputError
from tfnas.core.units import Counts
from tfnas.nn.counting import count
from tfnas.nn.network import Network
from tfnas.spaces.families import part_counts
from tfnas.spaces.mbconv.mbconv_family import count_range


@pytest.mark.parametrize("name", ["imagenet", "cifar", "digits"])
def test_closed_form_equals_hooks(name):
    space, chance = tfnas.space(name), random.Random(5)
    operations = [chance.randrange(len(space.operations)) for _ in space.blocks]
    depths = [chance.choice(choices) for choices in space.depth_choices]
    widths = [
        chance.randint(*space.width_range(place, space.operations[operation]))
        for place, operation in zip(space.blocks, operations, strict=True)
    ]
    architecture = space.architecture(operations, depths, widths, 37)
    parts = part_counts(architecture).values()
    with torch.device("meta"):
        expected = count(Network(architecture), space.image_size)
    assert Counts(sum(part.params for part in parts), sum(part.macs for part in parts)) == expected


def test_range_equals_enumeration():
    space = tiny_space()
    found = []
    for depths in itertools.product(*space.depth_choices):
        for operations in itertools.product(range(2), repeat=3):
            for end in (0, 1):
                chosen = zip(space.blocks, operations, strict=True)
                widths = [space.width_range(place, space.operations[index])[end] for place, index in chosen]
                parts = part_counts(space.architecture(operations, depths, widths, 10)).values()
                found.append((sum(part.params for part in parts), sum(part.macs for part in parts)))
    smallest, largest = count_range(space, 10)
    assert (smallest.params, largest.params) == (min(p for p, _ in found), max(p for p, _ in found))
    assert (smallest.macs, largest.macs) == (min(m for _, m in found), max(m for _, m in found))


def test_a_layer_without_a_rule_is_refused():
    network = torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 4, 3))
    with pytest.raises(InputError, match="cannot count the MACs of 0"):
        count(network, 8)


def test_by_hand_what_takes_clips_and_other_channels():
    clips = torch.nn.Sequential(
        torch.nn.Conv3d(2, 6, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2), groups=2),
        torch.nn.BatchNorm3d(6),
        torch.nn.AdaptiveAvgPool3d(1),
    )
    weights, positions = 6 * 1 * 75, 7 * 4 * 4
    expected = Counts(weights + 6 + 12, positions * (weights + 6) + 6 * positions)
    assert count(clips, 8, frames=7) == count(clips, 8, 7) == expected
    grey = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.Flatten(1, 2), torch.nn.Conv1d(12, 3, 2))
    assert count(grey, 8) == Counts(18 + 75, 36 * 18 + 3 * 5 * 25)
