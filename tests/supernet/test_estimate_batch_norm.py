from __future__ import annotations

import pytest
import torch
from made_networks import random_network
from torch import nn

from tfnas import InputError
from tfnas.supernet.extract import estimate_batch_norm


def image_batches(sizes=(4, 4, 3)):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(size, 3, 16, 16, generator=generator) for size in sizes]


def norms(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def by_hand(batches):
    """Means over batches of what enters each norm: batch means and unbiased variances, of a twin without dropping."""
    twin, inputs = random_network().train(), {}
    for name, module in norms(twin).items():
        module.register_forward_pre_hook(lambda _m, args, name=name: inputs.setdefault(name, []).append(args[0]))
    with torch.no_grad():
        for images in batches:
            twin(images)
    channels_first = {name: [x.transpose(0, 1).flatten(1) for x in seen] for name, seen in inputs.items()}
    return {
        name: (
            sum(x.sum(1) / x.shape[1] for x in seen) / len(seen),
            sum(((x - x.mean(1, keepdim=True)) ** 2).sum(1) / (x.shape[1] - 1) for x in seen) / len(seen),
        )
        for name, seen in channels_first.items()
    }


def test_statistics_are_the_means_over_batches(float64):
    batches = image_batches()
    expected = by_hand(batches)
    network = random_network(dropout_rate=0.5, drop_connect_rate=0.9).train()
    estimate_batch_norm(network, iter(batches))
    assert expected.keys() == norms(network).keys()
    for name, module in norms(network).items():
        mean, variance = expected[name]
        torch.testing.assert_close(module.running_mean, mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(module.running_var, variance, rtol=1e-10, atol=1e-12)
        assert module.num_batches_tracked == len(batches)


def test_the_old_statistics_do_not_count():
    first, second = random_network(), random_network()
    for module in norms(second).values():
        module.running_mean.fill_(1e6)
        module.num_batches_tracked.fill_(17)
    for network in (first, second):
        estimate_batch_norm(network, image_batches())
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


class Stop(Exception):
    pass


def failing_batches():
    yield image_batches()[0]
    raise Stop


@pytest.mark.parametrize("batches", [image_batches, failing_batches])
def test_all_else_stays_as_it_was(batches):
    network = random_network(dropout_rate=0.5)
    network.feature_mix_layer.train()
    network.first_stem.bn.momentum = 0.3
    modes = [module.training for module in network.modules()]
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    if batches is failing_batches:
        with pytest.raises(Stop):
            estimate_batch_norm(network, batches())
    else:
        estimate_batch_norm(network, batches())
    assert [module.training for module in network.modules()] == modes
    assert [module.momentum for module in norms(network).values()] == [0.3] + [0.1] * (len(norms(network)) - 1)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert parameter.requires_grad


def test_no_batch_is_refused():
    with pytest.raises(InputError, match="need one batch of images at least"):
        estimate_batch_norm(random_network(), [])
