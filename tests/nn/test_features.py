from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from made_networks import digits_architecture, random_network
from torch import nn
from torchvision.ops import FeaturePyramidNetwork

import tfnas
from tfnas import Architecture
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.blocks import MBConv
from tfnas.nn.network import FeatureNetwork, Network

IMAGENET_NET = (
    "i3x224_n1000:conv_k3_s2_c32_relu:mb_k3_s1_m32_se8_c16_relu:mb_k3_s2_m48_c24_relu:mb_k5_s2_m72_se24_c40_swish,"
    "mb_k3_s1_m120_c40_swish:mb_k3_s2_m240_c80_swish:mb_k5_s1_m240_c112_swish:mb_k5_s2_m336_c192_swish:"
    "mb_k3_s1_m576_c320_swish:conv_k1_s1_c1280_swish"
)


def hooked_maps(network, images):
    """By forward hooks on the plain network: the last output of each size among stems and blocks, in order."""
    outputs = []
    parts = [network.first_stem, *(module for module in network.modules() if isinstance(module, MBConv))]
    handles = [part.register_forward_hook(lambda _m, _i, output: outputs.append(output)) for part in parts]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return list({output.shape[2:]: output for output in outputs}.values())


@pytest.mark.parametrize("size", [(16, 16), (37, 53), (48, 31)])
def test_maps_are_the_last_of_each_size_in_the_plain_network(float64, size):
    network = random_network()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = hooked_maps(network, images)
    features = FeatureNetwork(network)
    with torch.no_grad():
        maps = features(images)
    assert len(expected) > 2
    assert len(maps) == len(expected)
    for ours, theirs in zip(maps, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert features.channels == tuple(output.shape[1] for output in expected)
    assert features.strides == tuple(round(size[0] / output.shape[2]) for output in expected)


def test_imagenet_maps_have_the_strides_of_efficientnets():
    """A network with strides and channels of EfficientNet-B0: 16, 24, 40, 112, 320 at strides 2 to 32."""
    with torch.device("meta"):
        features = FeatureNetwork(Network(Architecture.parse(IMAGENET_NET)))
        maps = features(torch.empty(1, 3, 200, 333))
    assert features.channels == (16, 24, 40, 112, 320)
    assert features.strides == (2, 4, 8, 16, 32)
    sides = [(100, 167), (50, 84), (25, 42), (13, 21), (7, 11)]
    assert [tuple(m.shape) for m in maps] == [(1, c, *s) for c, s in zip(features.channels, sides, strict=True)]


def test_a_stride_inside_a_stage_and_a_stride_of_a_stem_have_maps(float64):
    """Strides 1 and 2 are the stems', stride 4 arises at the second block of stage 1; stage 2 is empty."""
    text = (
        "i3x16_n4:conv_k3_s1_c4_relu:mb_k3_s2_m4_c6_relu:mb_k3_s1_m12_c6_relu,mb_k3_s2_m12_c8_relu:-:conv_k1_s1_c9_relu"
    )
    network = random_network(Architecture.parse(text))
    images = torch.randn(2, 3, 15, 18, generator=torch.Generator().manual_seed(1))
    features, expected = FeatureNetwork(network), hooked_maps(network, images)
    assert (features.channels, features.strides) == ((4, 6, 8), (1, 2, 4))
    with torch.no_grad():
        for ours, theirs in zip(features(images), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_state_is_the_networks_without_feature_mix_and_classifier():
    network = random_network()
    features, whole = FeatureNetwork(network), network.state_dict()
    kept = {name for name in whole if not name.startswith(("feature_mix_layer.", "classifier."))}
    assert set(features.state_dict()) == kept
    other = FeatureNetwork(random_network(seed=1))
    problems = other.load_state_dict(whole, strict=False)
    assert not problems.missing_keys
    assert set(problems.unexpected_keys) == set(whole) - kept
    images = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(other(images), features(images), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_of_a_trained_checkpoint_load_into_a_feature_network(tmp_path):
    trained, other = random_network(), FeatureNetwork(random_network(seed=1))
    state = {f"module.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth.tar")
    tfnas.load_weights(other, tmp_path / "checkpoint.pth.tar")
    for name, value in other.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])


def test_mode_is_that_of_the_network():
    network = random_network()
    assert not FeatureNetwork(network).training
    assert FeatureNetwork(network.train()).training
    network.first_stem.bn.eval()  # frozen
    features = FeatureNetwork(network)
    assert features.training
    assert not features.first_stem.bn.training


def test_a_pyramid_is_trained_on_it():
    """torchvision's pyramid takes the maps by `channels`, and gradients reach every weight."""
    features = FeatureNetwork(Network(digits_architecture()))
    pyramid = FeaturePyramidNetwork(list(features.channels), 8)
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    maps = pyramid(OrderedDict((str(n), m) for n, m in enumerate(features(images))))
    assert [m.shape[2] for m in maps.values()] == [-(-24 // stride) for stride in features.strides]
    sum(m.square().sum() for m in maps.values()).backward()
    assert all(parameter.grad is not None for parameter in features.parameters())


def test_load_gives_features(tmp_path):
    network = random_network()
    preprocessing = Preprocessing(16, 18, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    names = tuple("0123456789")
    model = tfnas.TrainedModel(network.architecture, network.state_dict(), names, preprocessing, "digits")
    model.save(tmp_path / "model.pt")
    features = tfnas.load(tmp_path, features_only=True)
    images = torch.randn(2, 3, 33, 20, generator=torch.Generator().manual_seed(1))
    assert isinstance(features, FeatureNetwork)
    assert not features.training
    assert not any(isinstance(module, nn.Linear) for module in features.modules())
    for ours, theirs in zip(features(images), hooked_maps(network, images), strict=True):
        assert torch.equal(ours, theirs)
