"""Networks of structures against the definition of each kind of block, written out with plain operations."""

from __future__ import annotations

import pytest
import torch
from made_networks import randomise
from torch import nn
from torch.nn import functional as F

from tfnas import InputError, zoo
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork


class Written:
    """The layers of a network by its state, as plain operations in eval mode; `scope` is a unit's name."""

    def __init__(self, network, epsilon):
        self.state, self.epsilon, self.scope = network.state_dict(), epsilon, ""

    def conv(self, name, x, stride=1, groups=1):
        weight = self.state[f"{self.scope}.{name}.weight"]
        bias = self.state.get(f"{self.scope}.{name}.bias")
        padding = [size // 2 for size in weight.shape[2:]]
        strides = [1, stride, stride][-len(padding) :]
        convolve = F.conv2d if len(padding) == 2 else F.conv3d
        return convolve(x, weight, bias, strides, padding, groups=groups)

    def norm(self, name, x):
        entries = {
            entry: self.state[f"{self.scope}.{name}.{entry}"].reshape(-1, *[1] * (x.ndim - 2))
            for entry in ("running_mean", "running_var", "weight", "bias")
        }
        scaled = (x - entries["running_mean"]) / (entries["running_var"] + self.epsilon).sqrt()
        return scaled * entries["weight"] + entries["bias"]

    def layer(self, number, x, stride=1, groups=1):
        return self.norm(f"body.norm{number}", self.conv(f"body.conv{number}", x, stride, groups))

    def squeeze(self, x, act):
        gate = x.mean(tuple(range(2, x.ndim)), keepdim=True)
        for number, function in ((1, act), (2, torch.sigmoid)):
            gate = self.conv(f"body.squeeze_excite.gate.conv{number}", gate)
            gate = function(self.norm(f"body.squeeze_excite.gate.norm{number}", gate))
        return x * gate

    def project(self, x, stride=1):
        return self.norm("shortcut.norm", self.conv("shortcut.conv", x, stride))

    def projects(self):
        return f"{self.scope}.shortcut.conv.weight" in self.state


def shrink(x):
    """The mean of every 2 x 2 pixels."""
    total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
    return total / 4


def compare(text, size, written, *, frames=None, epsilon, **settings):
    """Run both; `written(layers, unit_number, features)` computes unit after unit of the second and last block."""
    structure = Structure.parse(text)
    network = randomise(StructureNetwork(structure, **settings))
    layers = Written(network, epsilon)
    shape = (2, structure.in_channels, *([] if frames is None else [frames]), size, size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layers.scope = "blocks.0.0"
    features = F.relu(layers.layer(1, images, structure.blocks[0].stride))
    for number in range(len(network.blocks[1])):
        layers.scope = f"blocks.1.{number}"
        features = written(layers, number, features)
    with torch.no_grad():
        torch.testing.assert_close(network(images), features, rtol=1e-10, atol=1e-12)
    return network


@pytest.mark.parametrize("use_se", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_basic_blocks_of_zennas(float64, stride, use_se):
    def unit(layers, number, x):
        step = stride if number == 0 else 1
        branch = F.relu(layers.layer(1, x, step))
        branch = layers.layer(2, layers.squeeze(branch, F.relu) if use_se else branch)
        assert layers.projects() == (number == 0)
        return F.relu(branch + (layers.project(x, step) if number == 0 else x))

    text = f"SuperConvK3BNRELU(3,8,1,1)SuperResK5K5(8,8,{stride},6,3)"
    compare(text, 9, unit, epsilon=1e-3, use_se=use_se)


@pytest.mark.parametrize("use_se", [False, True])
def test_bottlenecks_of_zennas(float64, use_se):
    def unit(layers, number, x):
        step = 2 if number == 0 else 1
        branch = F.relu(layers.layer(2, F.relu(layers.layer(1, x)), step))
        branch = layers.layer(3, layers.squeeze(branch, F.relu) if use_se else branch)
        assert layers.projects() == (number == 0)
        return F.relu(branch + (layers.project(x, step) if number == 0 else x))

    network = compare("SuperConvK3BNRELU(3,8,2,1)SuperResK1K3K1(8,8,2,5,2)", 10, unit, epsilon=1e-3, use_se=use_se)
    assert len(network.blocks[1]) == 4


@pytest.mark.parametrize("use_se", [False, True])
@pytest.mark.parametrize(("bottleneck", "widths"), [(12, (48, 64)), (16, (64, 64))])
def test_inverted_blocks_of_zennas(float64, bottleneck, widths, use_se):
    """12 x 4 = 48 and 16 x 4 = 64 channels inside; where the bottleneck is not the output, every unit projects."""

    def unit(layers, number, x):
        step = 2 if number == 0 else 1
        width = widths[number % 2]
        branch = F.relu(layers.layer(2, F.relu(layers.layer(1, x)), step, groups=width))
        branch = layers.layer(3, layers.squeeze(branch, F.relu) if use_se else branch)
        assert layers.projects() == (number == 0 or bottleneck != 16)
        return F.relu(branch + (layers.project(x, step) if layers.projects() else x))

    text = f"SuperConvK1BNRELU(3,8,1,1)SuperResIDWE4K3(8,16,2,{bottleneck},2)"
    compare(text, 8, unit, epsilon=1e-3, use_se=use_se)


def test_widths_inside_are_rounded_to_even_multiples_of_8():
    structure = Structure.parse("SuperResIDWE1K3(8,20,1,12,1)SuperResIDWE1K3(20,28,1,2,1)")
    assert [unit.convs[1].groups for unit in structure.units(4)] == [16, 16, 8, 32]


def literal(**changes):
    block = {"class": "SuperResK1KXK1", "in": 8, "out": 12, "s": 2, "k": 3, "L": 2, "btn": 6, **changes}
    stem = {"class": "ConvKXBNRELU", "in": 3, "out": 8, "s": 2, "k": 3}
    if "kt" in changes:
        stem |= {"class": "Conv3DKXBNRELU", "kt": 3}
    return str([stem, block])


def pooled(layers, number, x, stride):
    """The shortcut of TinyNAS."""
    x = shrink(x) if number == 0 and stride == 2 else x
    return layers.project(x) if layers.projects() else x


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out", [8, 12])
def test_bottlenecks_of_tinynas(float64, stride, out):
    def unit(layers, number, x):
        assert layers.projects() == (number == 0)  # also where the channels do not change
        step = stride if number == 0 else 1
        branch = F.relu(layers.layer(2, F.relu(layers.layer(1, x)), step))
        return F.relu(layers.layer(3, branch) + pooled(layers, number, x, stride))

    compare(literal(s=stride, out=out), 8, unit, epsilon=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out", [8, 12])
@pytest.mark.parametrize("name", ["SuperResK1KX", "SuperResKXKX"])
def test_basic_blocks_of_tinynas(float64, name, stride, out):
    def unit(layers, number, x):
        assert layers.projects() == (number == 0 and out != 8)
        branch = layers.layer(2, F.relu(layers.layer(1, x)), stride if number == 0 else 1)
        return F.relu(branch + pooled(layers, number, x, stride))

    network = compare(literal(**{"class": name}, s=stride, out=out, k=5), 8, unit, epsilon=1e-5)
    assert network.blocks[1][0].body.conv1.kernel_size == ((5, 5) if name == "SuperResKXKX" else (1, 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out", [8, 12])
@pytest.mark.parametrize("name", ["SuperResK1DWK1", "SuperResK1DWSEK1", "SuperQuantResK1DWK1"])
def test_depthwise_blocks_of_tinynas(float64, name, stride, out):
    act = F.silu if "SE" in name else F.relu

    def unit(layers, number, x):
        assert not layers.projects()
        branch = act(layers.layer(2, act(layers.layer(1, x)), stride if number == 0 else 1, groups=40))
        branch = layers.layer(3, layers.squeeze(branch, act) if "SE" in name else branch)
        return act(branch if number == 0 and out != 8 else branch + pooled(layers, number, x, stride))

    bits = {"nbitsA": [4] * 6, "nbitsW": [4] * 6} if "Quant" in name else {}
    network = compare(literal(**{"class": name}, s=stride, out=out, btn=40, **bits), 8, unit, epsilon=1e-5)
    if "SE" in name:  # round(40 / 4) // 8 * 8
        assert network.blocks[1][0].body.squeeze_excite.gate.conv1.out_channels == 8


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out", [8, 12])
def test_depthwise_blocks_for_videos(float64, stride, out):
    def unit(layers, number, x):
        branch = F.relu(layers.layer(2, F.relu(layers.layer(1, x)), stride if number == 0 else 1, groups=6))
        branch = layers.layer(3, branch)
        return F.relu(branch if number == 0 and out != 8 else branch + pooled(layers, number, x, stride))

    text = literal(**{"class": "SuperRes3DK1DWK1"}, s=stride, out=out, kt=3, k=5)
    network = compare(text, 8, unit, frames=4, epsilon=1e-5)
    assert network.blocks[1][0].body.conv2.weight.shape == (6, 1, 3, 5, 5)
    assert network(torch.zeros(1, 3, 5, 16, 16)).shape == (1, out, 5, 8 // stride, 8 // stride)


@pytest.mark.parametrize("size", [5, 7, 8])
def test_odd_sizes_are_rounded_up_on_both_sides_of_a_sum(size):
    for text in (literal(), literal(**{"class": "SuperResK1DWK1"}, out=8), literal(**{"class": "SuperResKXKX"})):
        network = StructureNetwork(Structure.parse(text)).eval()
        assert network(torch.zeros(1, 3, size, size)).shape[2:] == (2, 2)


@pytest.mark.parametrize("name", ["init_XXBL_cifar", "init_IDW_imagenet", "init:classification/deepmad_29M_288"])
def test_without_residuals_it_is_a_chain(name, float64):
    """Every layer's output is the next one's input, in the order of `modules()`."""
    use_se = name == "init_IDW_imagenet"
    structure = zoo.facts(name).structure
    network = randomise(StructureNetwork(structure, num_classes=5, use_se=use_se, residuals=False))
    assert not any("shortcut" in key for key in network.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = images
    with torch.no_grad():
        for module in network.modules():
            if type(module).__name__ == "NormedSqueezeExcite":
                expected = module(expected)
            elif isinstance(module, nn.Linear):
                expected = module(expected.mean((2, 3)))
            elif not list(module.children()) and not isinstance(module, nn.AdaptiveAvgPool2d):
                inside = [m for m in network.modules() if type(m).__name__ == "NormedSqueezeExcite"]
                if not any(module in set(squeeze.modules()) for squeeze in inside):
                    expected = module(expected)
        torch.testing.assert_close(network(images), expected, rtol=1e-12, atol=0)


def test_layers_of_the_residual_free_chain_are_as_many_as_in_zennas():
    for name, convs in [("init_XXBL_cifar", 10), ("zennet_cifar_model_size1M_res32", 98), ("init_IDW_imagenet", 26)]:
        with torch.device("meta"):
            network = StructureNetwork(zoo.facts(name).structure, residuals=False)
        for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU):
            assert sum(isinstance(module, kind) for module in network.modules()) == convs


def test_without_batch_norm_the_rest_stays():
    structure = zoo.facts("init_XXBL_cifar").structure
    network, plain = (
        StructureNetwork(structure, use_se=True),
        StructureNetwork(structure, use_se=True, batch_norm=False),
    )
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    norms = ("norm", "num_batches_tracked")
    assert list(plain.state_dict()) == [name for name in network.state_dict() if not any(n in name for n in norms)]
    assert plain(torch.ones(1, 3, 32, 32)).shape == (1, 128, 4, 4)


def test_outputs(float64):
    structure = zoo.facts("init_XXBL_cifar").structure
    network = randomise(StructureNetwork(structure, num_classes=7))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        maps, features = network.stage_features(images), network.features(images)
        logits = network(images)
    assert [tuple(stage.shape[1:]) for stage in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    assert torch.equal(maps[-1], features)
    by_hand = features.mean((2, 3)) @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(logits, by_hand, rtol=1e-10, atol=1e-10)
    headless = StructureNetwork(structure).eval()
    headless.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("classifier")})
    with torch.no_grad():
        assert torch.equal(headless(images), features)


def test_gradients_reach_every_parameter():
    for name, use_se in [("init_IDW_imagenet", True), ("init:classification/MBV2_FLOPs", False)]:
        torch.manual_seed(0)
        network = StructureNetwork(zoo.facts(name).structure, num_classes=4, use_se=use_se)
        functional_loss = F.cross_entropy(network(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
        functional_loss.backward()
        without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
        assert not without


def test_impossible_networks_are_refused():
    structure = zoo.facts("deepmad-R18").structure
    with pytest.raises(InputError, match="num_classes must be 1 or more, or None for feature maps, got 0"):
        StructureNetwork(structure, num_classes=0)
    with pytest.raises(InputError, match="use_se is for notation zennas"):
        StructureNetwork(structure, use_se=True)


def test_squeezed_channels_are_a_quarter_rounded():
    """A quarter of 6, 10 and 7 channels; ties go to the even number, and one channel is the least."""
    for channels, squeezed in [(6, 2), (10, 2), (7, 2), (1, 1)]:
        (unit,) = Structure.parse(f"SuperResK3K3(3,8,1,{channels},1)").units(8, use_se=True)
        assert (unit.squeeze_excite.channels, unit.squeeze_excite.squeezed) == (channels, squeezed)


def test_bits_belong_to_convolutions_in_order():
    text = literal(**{"class": "SuperQuantResK1DWK1"}, nbitsA=[1, 2, 3, 4, 5, 6], nbitsW=[6, 5, 4, 3, 2, 1])
    stem, first, second = Structure.parse(text).units(8)
    assert stem.convs[0].weight_bits is None
    assert [conv.activation_bits for conv in (*first.convs, *second.convs)] == [1, 2, 3, 4, 5, 6]
    assert [conv.weight_bits for conv in (*first.convs, *second.convs)] == [6, 5, 4, 3, 2, 1]


def test_groups_are_those_of_all_convolutions_but_the_shortcut(float64):
    def unit(layers, number, x):
        branch = F.relu(layers.layer(2, F.relu(layers.layer(1, x, groups=2)), 2 if number == 0 else 1, groups=2))
        return F.relu(layers.layer(3, branch, groups=2) + pooled(layers, number, x, 2))

    compare(literal(g=2), 8, unit, epsilon=1e-5)
