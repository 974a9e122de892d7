from __future__ import annotations

import dataclasses
from fractions import Fraction

import oracle
import pytest
import torch
from made_learners import random_supernet, varied_space
from tiny import tiny_space
from torch.nn import functional

import tfnas
from tfnas import InputError
from tfnas.nn.network import Network
from tfnas.supernet.supernet import Mixture, Path, Supernet, one_hot_depths


@pytest.mark.parametrize(
    "kinds",
    [("max_path_logits", "min_path_logits"), pytest.param(("mixture_logits_noise_free",), marks=pytest.mark.slow)],
)
def test_logits_match_the_authors_program(shared_data, float64, monkeypatch, kinds):
    monkeypatch.setattr(functional, "conv2d", oracle.conv2d)
    space = dataclasses.replace(tfnas.space("imagenet"), width_bounds=(Fraction(2, 3), Fraction(1)))
    supernet, images = Supernet(space, oracle.CLASSES_OF_SUPERNET), oracle.images(224)
    oracle.fill_supernet(supernet)
    for values in oracle.values(shared_data)["supernet"]:
        log_alphas, betas = oracle.search_parameters(values["alpha_scale"])
        routes = {
            "max_path_logits": Path(tuple(log_alphas.argmax(1).tolist())),
            "min_path_logits": Path(tuple(log_alphas.argmin(1).tolist())),
            "mixture_logits_noise_free": Mixture((log_alphas / values["T"]).softmax(1)),
        }
        for name in kinds:
            with torch.no_grad():
                logits = supernet(images, routes[name], [stage.softmax(0) for stage in betas])
            torch.testing.assert_close(logits[0, :6], torch.tensor(values[name]), rtol=1e-9, atol=0)


def test_state_names_and_shapes_are_those_of_the_authors_search_checkpoint():
    with torch.device("meta"):
        state = Supernet(tfnas.space("imagenet"), 100).state_dict()
    assert state["first_stem.conv.weight"].shape == (32, 3, 3, 3)
    assert state["second_stem.depth_conv.conv.weight"].shape == (32, 1, 3, 3)
    assert "second_stem.inverted_bottleneck.conv.weight" not in state
    # block 1 of stage 2 takes 24 channels: operation 7 (k5 e6 SE) is at most 8 * 24 wide, its SE 2 * 24
    prefix = "stage2.block1.m_ops.7"
    assert state[f"{prefix}.inverted_bottleneck.conv.weight"].shape == (192, 24, 1, 1)
    assert state[f"{prefix}.depth_conv.conv.weight"].shape == (192, 1, 5, 5)
    assert state[f"{prefix}.squeeze_excite.conv_reduce.weight"].shape == (48, 192, 1, 1)
    assert state[f"{prefix}.squeeze_excite.conv_expand.bias"].shape == (192,)
    assert state[f"{prefix}.point_linear.conv.weight"].shape == (40, 192, 1, 1)
    assert not any("bn" in name or "active" in name for name in state)
    # stems 6 and 1, 4 without and 4 with SE in each of 18 blocks, feature mix, classifier
    assert len(state) == 1 + 6 + 18 * (4 * 3 + 4 * 7) + 1 + 2


def inherit(network, supernet, operations, depths):
    """Give a network the weights that the supernet has for it, slice by slice."""
    own = {name: value.clone() for name, value in supernet.state_dict().items()}
    state = network.state_dict()
    for name in state:
        if name in own:
            state[name].copy_(own[name])
    for number, (place, index) in enumerate(zip(supernet.space.blocks, operations, strict=True)):
        if place.position >= depths[place.stage]:
            continue
        active = supernet.block_operations(number)[index].active
        source = f"{place.name}.m_ops.{index}."
        target = f"stage{place.stage + 1}.{place.position}."
        for name in [name for name in state if name.startswith(target) and ".bn." not in name]:
            value = own[source + name.removeprefix(target)]
            across = ("inverted_bottleneck" in name, "depth_conv" in name, "conv_expand" in name)
            along = ("point_linear" in name, "conv_reduce.weight" in name)
            value = value[active] if any(across) else value[:, active] if any(along) else value
            state[name].copy_(value)


@pytest.mark.parametrize(("operations", "depths"), [
    ((0, 1, 2), (1, 2)), ((5, 6, 7), (1, 2)), ((3, 4, 0), (1, 1)), ((0, 7, 1), (0, 2)), ((2, 5, 3), (0, 1)),
])  # fmt: skip
def test_one_path_and_depth_is_the_derived_network(float64, operations, depths):
    space = varied_space()
    supernet = random_supernet(space)
    widths = [supernet.block_operations(number)[index].width for number, index in enumerate(operations)]
    network = Network(space.architecture(operations, depths, widths, 5)).train()
    inherit(network, supernet, operations, depths)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = supernet(images, Path(operations), one_hot_depths(space.depth_choices, depths))
    torch.testing.assert_close(logits, network(images), rtol=1e-10, atol=1e-12)
    anything = [torch.rand(len(choices)) for choices in space.depth_choices]  # what leaves at a depth weighs nothing
    assert torch.equal(supernet(images, Path(operations, depths), anything), logits)


def test_blocks_beyond_a_depth_do_not_learn(float64):
    space = varied_space()  # a stage of depths 0 and 1, then one of depths 1 and 2
    supernet = random_supernet(space)
    weights = [torch.full((2,), 0.5), torch.full((2,), 0.5)]
    supernet(torch.randn(4, 3, 8, 8), Path((2, 4, 6), (0, 1)), weights).sum().backward()
    learned = {name.partition(".m_ops.")[0] for name, value in supernet.named_parameters() if value.grad is not None}
    assert {name for name in learned if "block" in name} == {"stage2.block1"}


def test_the_sink_weighs_the_outputs_of_the_depths(float64):
    space = varied_space()
    supernet = random_supernet(space)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = [torch.tensor([0.3, 0.7]), torch.tensor([0.6, 0.4])]  # of depths 0 and 1, and of 1 and 2
    stem = supernet.second_stem(supernet.first_stem(images))
    first = 0.3 * stem + 0.7 * supernet.block_operations(0)[2](stem)
    one = supernet.block_operations(1)[4](first)
    two = supernet.block_operations(2)[6](one)
    features = supernet.feature_mix_layer(0.6 * one + 0.4 * two)
    linear = supernet.classifier.linear
    expected = functional.linear(features.mean((2, 3)), linear.weight, linear.bias)
    torch.testing.assert_close(supernet(images, Path((2, 4, 6)), weights), expected, rtol=1e-11, atol=1e-12)


def test_a_mixture_with_all_weight_on_one_operation_is_that_path(float64):
    space = varied_space()
    supernet, depths = random_supernet(space), [torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.5])]
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for path in [(0, 0, 0), (7, 3, 5)]:
        one_hot = functional.one_hot(torch.tensor(path), 8).to(torch.float64)
        with torch.no_grad():
            mixed, along = supernet(images, Mixture(one_hot), depths), supernet(images, Path(path), depths)
        torch.testing.assert_close(mixed, along, rtol=1e-12, atol=1e-13)


def test_a_mixture_weighs_outputs_in_every_block(float64):
    space = tiny_space()
    supernet, features = random_supernet(space), torch.randn(3, 4, 4, 4)
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])
    two = supernet.block_operations(0)
    expected = 0.25 * two[0](features) + 0.75 * two[1](features)
    torch.testing.assert_close(supernet.blocks[0](features, Mixture(weights)), expected, rtol=1e-12, atol=1e-13)


def test_a_search_starts_at_the_initial_widths():
    space = tiny_space()
    expected = [[operation.expansion * place.in_channels for operation in space.operations] for place in space.blocks]
    supernet = Supernet(space, 5)
    assert supernet.widths() == expected
    assert all(not value.any() for name, value in supernet.named_parameters() if name.endswith("bias"))


def test_set_widths_touches_only_what_changes():
    space = tiny_space()
    supernet = random_supernet(space)
    before = supernet.active_channels()
    chosen, depths = (1, 0, 1), (1, 1)
    widths = [space.width_range(place, space.operations[n])[0] for place, n in zip(space.blocks, chosen, strict=True)]
    widths[1] = len(before[1][0])  # stays
    low, high = space.width_range(space.blocks[1], space.operations[0])
    assert low <= widths[1] <= high
    supernet.set_widths(chosen, space.architecture(chosen, depths, widths, 5))
    after = supernet.active_channels()
    assert len(after[0][1]) == widths[0]
    unchanged = [(b, n) for b in range(3) for n in range(2) if (b, n) != (0, 1)]  # block 2 is beyond the depth
    assert all(torch.equal(before[b][n], after[b][n]) for b, n in unchanged)


def test_active_channels_are_restored():
    space = tiny_space()
    channels = random_supernet(space, seed=5).active_channels()
    supernet = Supernet(space, 5)
    supernet.set_active_channels(channels)
    for row, expected in zip(supernet.active_channels(), channels, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(row, expected, strict=True))


def test_active_channels_of_another_space_are_refused():
    with pytest.raises(InputError, match="do not fit space tiny"):
        Supernet(tiny_space(), 5).set_active_channels(random_supernet(varied_space()).active_channels())


def test_depth_weights_must_be_there_for_every_stage(float64):
    supernet = random_supernet(tiny_space())
    with pytest.raises(ValueError, match="zip"):
        supernet(torch.randn(2, 3, 8, 8), Path((0, 0, 0)), [torch.tensor([0.5, 0.5])])
