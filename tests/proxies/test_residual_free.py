"""The view of derived networks without shortcuts."""

from __future__ import annotations

import torch
from made_networks import digits_architecture, random_network, randomise

import tfnas
from tfnas.nn.blocks import MBConv
from tfnas.nn.network import Network


def test_names_and_shapes_are_the_same():
    full, plain = Network(digits_architecture()), Network(digits_architecture(), residuals=False)
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (full, plain)]
    assert shapes[0] == shapes[1]
    assert full.residuals and not plain.residuals


def test_blocks_are_pure_chains():
    architecture = digits_architecture(operations=(3, 4, 4, 6, 6))
    assert sum(place.block.has_residual for place in architecture.blocks) == 2
    full, plain = random_network(architecture), random_network(architecture, residuals=False)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = plain.first_stem(images)
        for block in (part for part in full.modules() if isinstance(part, MBConv)):
            inputs = features
            features = block(inputs) - inputs if block.has_residual else block(inputs)
        expected = plain.classifier(plain.feature_mix_layer(features))
        torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-4)
        assert (plain(images) - full(images)).abs().max() > 0.1


def test_features_are_what_the_classifier_gets():
    network = randomise(Network(digits_architecture()))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = network.features(images)
        assert features.shape == (2, 96, 4, 4)
        assert torch.equal(network.classifier(features), network(images))
        logits = tfnas.FeatureNetwork(network)(images)[-1]
        assert torch.equal(network.feature_mix_layer(logits), features)
