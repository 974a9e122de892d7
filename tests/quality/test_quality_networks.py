"""Networks of one latency without a search: all in the band, and what they claim to be."""

from __future__ import annotations

import itertools
import random

import pytest
from quality.largest import largest_by_macs
from quality.networks import RandomNetworks, Wanted, deepest_uniform
from tiny import tiny_contents, tiny_space

import tfnas
from tfnas.core.errors import Infeasible, RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import default_table_path
from tfnas.latency.reachable import Band
from tfnas.spaces.families import architecture_counts


@pytest.fixture(scope="module")
def digits():
    path = default_table_path("digits")
    assert path is not None
    return Wanted(tfnas.space("digits"), LatencyTable.load(path), 11.0, 10)


def test_random_networks_are_in_the_band_and_differ(digits) -> None:
    draws, again = (RandomNetworks(digits, seed=3) for _ in range(2))
    networks = [next(draws) for _ in range(12)]
    assert len(set(networks)) == 12
    assert all(Band.of(11.0).holds(digits.table.architecture_ms(network)) for network in networks)
    assert networks[:3] == [next(again) for _ in range(3)]
    assert next(RandomNetworks(digits, seed=4)) != networks[0]
    assert len({tuple(len(stage) for stage in network.stages) for network in networks}) >= 3


def test_the_deepest_uniform_network_is_both(digits) -> None:
    network = deepest_uniform(digits)
    space = digits.space
    assert Band.of(11.0).holds(digits.table.architecture_ms(network))
    assert [len(stage) for stage in network.stages] == [stage.blocks for stage in space.stages]
    pairs = list(zip(space.blocks, (place.block for place in network.blocks), strict=True))
    assert len({space.operation_index(place, block) for place, block in pairs}) == 1
    shares = [(block.mid_channels - block.widths[0]) / (block.widths[-1] - block.widths[0]) for _, block in pairs]
    assert max(shares) - min(shares) < 0.05


def all_networks(space):
    """Every architecture of a space."""
    options = [
        [(index, width) for index, operation in enumerate(space.operations) for width in space.widths(place, operation)]
        for place in space.blocks
    ]
    for depths in itertools.product(*space.depth_choices):
        kept = [
            options[number] if place.position < depths[place.stage] else options[number][:1]
            for number, place in enumerate(space.blocks)
        ]
        for chosen in itertools.product(*kept):
            operations, widths = zip(*chosen, strict=True)
            yield space.architecture(operations, depths, widths, 10)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_largest_is_the_largest_of_all(share) -> None:
    space = tiny_space()
    lookup = LatencyTable(tiny_contents(space, random.Random(5)))
    low, high = lookup.range_ms(space, 10)
    wanted = Wanted(space, lookup, low + share * (high - low), 10)
    band = Band.of(wanted.target_ms)
    inside = [network for network in all_networks(space) if band.holds(lookup.architecture_ms(network))]
    best = max(architecture_counts(network).macs for network in inside)
    found = largest_by_macs(wanted)
    assert band.holds(lookup.architecture_ms(found))
    assert architecture_counts(found).macs >= 0.999 * best  # bins are rounded up


def test_what_cannot_be_is_said(digits) -> None:
    impossible = Wanted(digits.space, digits.table, 1.0, 10)
    with pytest.raises(Infeasible):
        largest_by_macs(impossible)
    with pytest.raises(Infeasible):
        deepest_uniform(impossible)
    with pytest.raises(Infeasible):
        next(RandomNetworks(impossible, seed=0))


def test_a_band_that_is_used_up_is_said(digits) -> None:
    low, _ = digits.table.range_ms(digits.space, 10)
    draws = RandomNetworks(Wanted(digits.space, digits.table, low * 1.00001, 10), seed=0)
    with pytest.raises(RunFailed, match="no further network"):
        for _ in range(200):
            next(draws)
