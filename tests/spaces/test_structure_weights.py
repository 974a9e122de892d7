"""Published weights: their names, outputs with them, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import oracle
import pytest
import torch
from made_networks import randomise
from torch.nn import functional

from tfnas import InputError, zoo
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork, load_published, published_names

# First 8 logits of each of two images, of the original program with made weights: see `made_weights`.
CIFAR_1M = [
    [
        *(0.7319832955273481, 1.6071209352857674, 1.153946982764025, -0.1134609506669621),
        *(0.3164752826657453, -0.6579074667953168, -0.3841937136156268, 0.1814394769835176),
    ],
    [
        *(0.7640675563770113, 1.6741112146705814, 1.1824238347007905, -0.1162867873263346),
        *(0.35568796575855266, -0.6894934830581967, -0.38559342911795014, 0.21167791994356827),
    ],
]
DEEPMAD_R18 = (
    *(3.3101486817145025, 2.8822108423027455, 2.7083571032065406, 2.303860415216636),
    *(1.5063022115760365, 1.1491835234108594, 1.4608926112285254, 1.0650230340659084),
)


def made_weights(shapes):
    """The rule of the oracle's README, over published names and shapes."""
    weights = {}
    for rank, name in enumerate(sorted(shapes)):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
            continue
        numbers = np.random.RandomState(1000 + rank).standard_normal(math.prod(shape)).reshape(shape)
        if name.endswith("running_var"):
            numbers = 1 + 0.1 * np.abs(numbers)
        elif name.endswith("weight") and len(shape) == 1:
            numbers = 1 + 0.1 * numbers
        else:
            numbers = numbers / math.sqrt(math.prod(shape[1:]) if len(shape) > 1 else 100)
        weights[name] = torch.from_numpy(numbers)
    return weights


def published_shapes(network):
    state = network.state_dict()
    return {name: tuple(state[own].shape) for own, name in published_names(network).items()}


def test_a_zennet_with_published_names_gives_its_logits(float64):
    network = zoo.build("zennet_cifar10_model_size1M_res32").eval()
    network.load_published(made_weights(published_shapes(network)))
    with torch.no_grad():
        logits = network(oracle.images(32))
    torch.testing.assert_close(logits[:, :8], torch.tensor(CIFAR_1M), rtol=1e-9, atol=0)


@pytest.mark.slow
def test_a_tinynas_network_with_published_names_gives_its_map(float64):
    network = zoo.build("deepmad-R18").eval()
    network.load_published(made_weights(published_shapes(network)))
    with torch.no_grad():
        features = network(oracle.images(96))
    torch.testing.assert_close(features.flatten()[:8], torch.tensor(DEEPMAD_R18), rtol=1e-9, atol=0)


def entries(shared_data):
    return json.loads((shared_data / "oracles" / "zoo_outputs.json").read_text())


def test_names_and_shapes_are_the_published_ones(shared_data):
    for name, entry in entries(shared_data).items():
        with torch.device("meta"):
            network = zoo.build(name)
        assert published_shapes(network) == {key: tuple(shape) for key, shape in entry["names"].items()}, name
        assert sum(parameter.numel() for parameter in network.parameters()) == entry["params"]


@pytest.mark.parametrize(
    "name",
    [
        "zennet_cifar10_model_size1M_res32",
        "zennet_imagenet1k_flops400M_SE_res224",
        pytest.param("zennet_imagenet1k_latency01ms_res224", marks=pytest.mark.slow),
        "deepmad-R18",
        pytest.param("deepmad-29M-224", marks=pytest.mark.slow),
        pytest.param("maedet_s", marks=pytest.mark.slow),
    ],
)
def test_outputs_are_those_of_the_original_programs(shared_data, float64, monkeypatch, name):
    monkeypatch.setattr(functional, "conv2d", oracle.conv2d)
    entry, network = entries(shared_data)[name], zoo.build(name).eval()
    network.load_published(made_weights(entry["names"]))
    images = oracle.images(entry["resolution"])
    with torch.no_grad():
        maps = [network(images)] if "logits" in entry else network.stage_features(images)
    if "logits" in entry:
        torch.testing.assert_close(maps[0][:, :8], torch.tensor(entry["logits"]), rtol=1e-9, atol=0)
        assert maps[0].sum().item() == pytest.approx(entry["sum"], rel=1e-9)
        assert maps[0].abs().mean().item() == pytest.approx(entry["abs_mean"], rel=1e-9)
        return
    for found, expected in zip(maps[-len(entry["outputs"]) :], entry["outputs"], strict=True):
        assert list(found.shape) == expected["shape"]
        torch.testing.assert_close(found.flatten()[:8], torch.tensor(expected["first"]), rtol=1e-9, atol=0)
        assert found.abs().mean().item() == pytest.approx(expected["abs_mean"], rel=1e-9)


def small(num_classes=3, use_se=True):
    text = "SuperConvK3BNRELU(3,8,2,2)SuperResK3K3(8,8,1,8,2)SuperResK1K3K1(8,8,1,8,1)SuperResIDWE2K3(8,8,2,16,1)"
    return StructureNetwork(Structure.parse(text), num_classes=num_classes, use_se=use_se)


def small_literal(**settings):
    block = {"class": "SuperResK1KXK1", "in": 8, "out": 12, "s": 2, "k": 3, "L": 2, "btn": 6}
    blocks = [
        {"class": "ConvKXBNRELU", "in": 3, "out": 8, "s": 2, "k": 3},
        block,
        {**block, "class": "SuperResKXKX", "in": 12, "out": 8},
        {**block, "class": "SuperResK1DWSEK1", "in": 8, "out": 8},
    ]
    return StructureNetwork(Structure.from_tinynas(blocks), **settings)


def published_state(network):
    state = network.state_dict()
    return {name: state[own].clone() for own, name in published_names(network).items()}


@pytest.mark.parametrize("make", [small, small_literal])
@pytest.mark.parametrize("key", ["state_dict", "model", "network", "state_dict_ema", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_every_entry_arrives_from_a_file(tmp_path, make, key, prefix):
    source, network = randomise(make(num_classes=3)), randomise(make(num_classes=3), seed=1)
    state = published_state(source)
    assert len(state) == len(source.state_dict())
    named = {prefix + name: value for name, value in state.items()}
    torch.save(named if key is None else {key: named, "epoch": 3}, tmp_path / "weights.pth")
    load_published(network, tmp_path / "weights.pth")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in source.state_dict().items())


def test_a_headless_network_leaves_the_classifier_out():
    source, network = randomise(small()), randomise(small(num_classes=None), seed=1)
    network.load_published(published_state(source))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(images), source.features(images))


def test_numbers_that_quantise_are_left_out():
    source = randomise(zoo.build("init:quant/Mixed_7d0G"))
    state = published_state(source)
    for layer in ("block_list.1.block_list.0.conv1.conv1", "block_list.0.conv1"):
        extra = {f"{layer}.weightq": 0, f"{layer}.alpha": 1, f"{layer}.act_quan.s": 2}
        state |= {name: torch.tensor(float(value)) for name, value in extra.items()}
    network = randomise(zoo.build("init:quant/Mixed_7d0G"), seed=1)
    network.load_published(state)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in source.state_dict().items())
    state["block_list.0.conv1.scale"] = torch.tensor(1.0)
    with pytest.raises(InputError, match=r"it contains block_list\.0\.conv1\.scale, which the network does not have"):
        network.load_published(state)


def test_weights_of_another_structure_are_refused_and_change_nothing(tmp_path):
    network = randomise(small())
    before, state = published_state(network), published_state(randomise(small(), seed=1))
    name = "module_list.1.module_list.2.module_list.3.netblock.4.weight"
    cases = [
        ({key: value for key, value in state.items() if key != name}, rf"it has no {name} \(here blocks\.1\.1\.body"),
        ({**state, name: torch.zeros(8, 3, 1, 1)}, r"has the shape 8 x 3 x 1 x 1, the network's has 8 x 2 x 1 x 1"),
        (
            {**state, "module_list.9.weight": torch.zeros(1)},
            "it contains module_list.9.weight, which the network does not have",
        ),
        (
            published_state(small(use_se=False)),
            "contains the weights of another structure: it has no .*netblock.1.weight",
        ),
        ({"state_dict": 3}, "it has no module_list"),
    ]
    for document, message in cases:
        with pytest.raises(InputError, match=message):
            network.load_published(document)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"list\.pth contains no weights: it is a list"):
        network.load_published(tmp_path / "list.pth")
    (tmp_path / "none.pth").write_text("not tensors")
    with pytest.raises(InputError, match=r"none\.pth is no readable checkpoint"):
        network.load_published(tmp_path / "none.pth")
    assert all(torch.equal(value, before[key]) for key, value in published_state(network).items())


def test_networks_without_batch_norm_have_no_published_weights():
    network = StructureNetwork(Structure.parse("SuperConvK3BNRELU(3,8,2,1)"), batch_norm=False)
    with pytest.raises(InputError, match="no weights are published for networks without batch norms"):
        network.load_published({})
