"""The random numbers of scores: one sequence for each seed, however it is taken and whatever was scored before."""

from __future__ import annotations

import pytest
import torch

from tfnas.proxies import network_preparation
from tfnas.proxies.network_preparation import RandomGenerator
from tfnas.proxies.score import score

COUNT = 3 * network_preparation._BLOCK


@pytest.fixture(autouse=True)
def nothing_in_memory():
    network_preparation._normal_block.cache_clear()


def test_a_sequence_does_not_depend_on_how_it_is_taken():
    whole = RandomGenerator(3).images((COUNT,))
    for size in (COUNT // 2, 9973):
        generator = RandomGenerator(3)
        taken = [generator.weight(place, (size,)) for place in range(COUNT // size)]
        assert torch.equal(torch.cat(taken), whole[: COUNT // size * size])
    shaped = RandomGenerator(3).images((2, 3, 5, 7))
    assert torch.equal(shaped.flatten(), whole[:210])


def test_numbers_are_standard_normal_and_differ():
    first, second = (RandomGenerator(seed).images((COUNT,)) for seed in (0, 1))
    blocks = torch.cat((first, second)).view(6, -1).double()
    assert (blocks.mean(1).abs() < 5 / network_preparation._BLOCK**0.5).all()
    assert ((blocks**2).mean(1) - 1).abs().max() < 5 * (2 / network_preparation._BLOCK) ** 0.5
    correlations = torch.corrcoef(blocks) - torch.eye(6)
    assert correlations.abs().max() < 5 / network_preparation._BLOCK**0.5


def test_what_is_given_out_may_be_changed():
    taken = RandomGenerator(0).images((4, 4))
    expected = taken.clone()
    taken.zero_()
    assert torch.equal(RandomGenerator(0).images((4, 4)), expected)


def test_a_score_does_not_depend_on_what_is_in_memory(monkeypatch):
    text = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,128,2,128,1)"
    alone = score("zen", text, image_size=8)
    assert score("zen", text, image_size=8) == alone
    network_preparation._normal_block.cache_clear()
    monkeypatch.setattr(network_preparation, "_normal_block", network_preparation._normal_block.__wrapped__)
    assert score("zen", text, image_size=8) == alone
