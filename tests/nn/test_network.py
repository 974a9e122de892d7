from __future__ import annotations

import oracle
import pytest
import torch
from torch import nn
from torch.nn import functional

import tfnas
from tfnas import InputError
from tfnas.core.mbconv_blocks import Block
from tfnas.nn.blocks import MBConv
from tfnas.nn.counting import count
from tfnas.nn.network import Network


def block_of(**changes):
    fields = {
        "in_channels": 6,
        "mid_channels": 14,
        "se_channels": 3,
        "out_channels": 6,
        "kernel_size": 5,
        "stride": 1,
        "activation": "swish",
    }
    fields.update(changes)
    return Block(**fields, mid_range=(fields["mid_channels"],) * 2)


def architecture_of(operations=(3, 4, 1, 6, 7), depths=(1, 2, 2)):
    space = tfnas.space("digits")
    widths = [
        space.initial_width(place, space.operations[n]) for place, n in zip(space.blocks, operations, strict=True)
    ]
    return space.architecture(operations, depths, widths, 10)


def test_counts_match_the_authors_program(shared_data):
    for net in oracle.values(shared_data)["nets"]:
        counts = count(Network(oracle.architecture_of(net)), 224)
        assert counts.params == net["params"]
        assert counts.macs == round(net["macs_m"] * 1e6)


def test_logits_match_the_authors_program(shared_data, float64, monkeypatch):
    monkeypatch.setattr(functional, "conv2d", oracle.conv2d)
    nets = [net for net in oracle.values(shared_data)["nets"] if net["model_config"] is not None]
    assert nets
    for net in nets:
        network = Network(tfnas.Architecture.from_model_config(net["model_config"])).eval()
        oracle.fill_network(network)
        with torch.no_grad():
            logits = network(oracle.images(96))
        expected = torch.tensor(net["exact_logits_96px_batch2"])
        torch.testing.assert_close(logits[:, :8], expected, rtol=1e-9, atol=0)
        assert logits.sum().item() == pytest.approx(net["exact_logit_sum"], rel=1e-9)
        assert logits.abs().mean().item() == pytest.approx(net["exact_logit_abs_mean"], rel=1e-9)


def test_state_names_are_those_of_the_authors_checkpoints():
    names = set(Network(architecture_of()).state_dict())
    norm = {f"bn.{entry}" for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    layers = {"inverted_bottleneck", "depth_conv", "point_linear"}
    squeeze = {
        f"squeeze_excite.{layer}.{kind}" for layer in ("conv_reduce", "conv_expand") for kind in ("weight", "bias")
    }
    expanded = {f"{layer}.{entry}" for layer in layers for entry in {"conv.weight", *norm}}
    expected = {f"{part}.{entry}" for part in ("first_stem", "feature_mix_layer") for entry in {"conv.weight", *norm}}
    expected |= {"classifier.linear.weight", "classifier.linear.bias"}
    expected |= {f"second_stem.{name}" for name in expanded | squeeze if not name.startswith("inverted")}
    for stage, position, with_squeeze in [(1, 0, 0), (2, 0, 1), (2, 1, 0), (3, 0, 1), (3, 1, 1)]:
        expected |= {f"stage{stage}.{position}.{name}" for name in expanded | (squeeze if with_squeeze else set())}
    assert names == expected


def test_counts_follow_the_definition():
    """By hand: 3x3 convolution 2 -> 4 with bias on 6 x 6, grouped 1x1, pool, linear with bias."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 1, groups=2, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    counts = count(network, 12)
    assert counts.params == (4 * 3 * 9 + 4) + (4 + 4) + 8 * 2 + (8 * 5 + 5)
    assert counts.macs == 4 * 36 * (27 + 1) + 8 * 36 * 2 + 8 * 36 + 5 * (8 + 1)


def test_nothing_with_parameters_is_silently_left_out():
    with pytest.raises(InputError, match=r"cannot count the MACs of 1 \(PReLU\)"):
        count(nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU()), 8)


def test_counting_changes_nothing():
    network = Network(architecture_of()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count(network, 16)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_block_is_its_definition(float64):
    """The block written out with plain operations, in eval mode, everything random."""
    torch.manual_seed(0)
    module, features = MBConv(block_of()).eval(), torch.randn(2, 6, 9, 9)
    state = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.1 if name.endswith("running_var") else torch.randn_like(value))

    def norm(name, x):
        mean, var = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        scale = state[f"{name}.bn.weight"] / (var + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bn.bias"][:, None, None]

    def swish(x):
        return x / (1 + torch.exp(-x))

    wide = torch.einsum("oi,nihw->nohw", state["inverted_bottleneck.conv.weight"][:, :, 0, 0], features)
    wide = swish(norm("inverted_bottleneck", wide))
    windows = functional.pad(wide, (2, 2, 2, 2)).unfold(2, 5, 1).unfold(3, 5, 1)
    wide = swish(norm("depth_conv", torch.einsum("nchwij,cij->nchw", windows, state["depth_conv.conv.weight"][:, 0])))
    gate = wide.mean((2, 3)) @ state["squeeze_excite.conv_reduce.weight"][:, :, 0, 0].T
    gate = swish(gate + state["squeeze_excite.conv_reduce.bias"])
    gate = gate @ state["squeeze_excite.conv_expand.weight"][:, :, 0, 0].T + state["squeeze_excite.conv_expand.bias"]
    wide = wide / (1 + torch.exp(-gate))[:, :, None, None]
    narrow = torch.einsum("oi,nihw->nohw", state["point_linear.conv.weight"][:, :, 0, 0], wide)
    with torch.no_grad():
        torch.testing.assert_close(module(features), features + norm("point_linear", narrow), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("change", [{"stride": 2}, {"out_channels": 8}])
def test_there_is_no_residual_where_the_shape_changes(change):
    module, features = MBConv(block_of(**change)).eval(), torch.randn(2, 6, 9, 9)
    nn.init.zeros_(module.point_linear.conv.weight)
    assert torch.equal(module(features), torch.zeros_like(module(features)))


def test_there_is_no_expansion_at_the_width_of_the_input():
    assert MBConv(block_of(mid_channels=6)).inverted_bottleneck is None


def test_drop_connect_grows_with_the_place_and_counts_the_second_stem():
    network = Network(architecture_of(), drop_connect_rate=0.3)
    rates = [module.drop_connect.p for module in network.modules() if isinstance(module, MBConv)]
    assert rates == pytest.approx([0.3 * number / 6 for number in range(1, 7)])


def test_drop_connect_acts_while_training_and_only_on_blocks_with_a_residual():
    features = torch.randn(3, 6, 9, 9)
    dropped = MBConv(block_of(), drop_connect_rate=1.0)
    assert torch.equal(dropped.train()(features), features)
    assert not torch.equal(dropped.eval()(features), features)
    without = MBConv(block_of(out_channels=8), drop_connect_rate=1.0).train()
    assert without(features).abs().sum() > 0


def test_drop_connect_keeps_the_expected_value():
    torch.manual_seed(0)
    block, features = MBConv(block_of(), drop_connect_rate=0.25), torch.randn(1, 6, 5, 5).expand(4000, -1, -1, -1)
    with torch.no_grad():
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        branch = block(features) - features
    kept = branch.abs().amax((1, 2, 3)) > 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)  # four standard deviations
    one = block.eval()(features[:1]) - features[:1]
    torch.testing.assert_close(branch[kept][:1], one / 0.75, rtol=1e-3, atol=1e-5)


def test_biases_start_at_zero_and_classes_can_be_others():
    network = Network(architecture_of(), num_classes=7, dropout_rate=0.2)
    biases = [value for name, value in network.named_parameters() if name.endswith(".bias")]
    assert biases
    assert all(not bias.any() for bias in biases)
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 7)
    assert network.classifier.dropout.p == 0.2
