from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from made_learners import CLASSES, random_batch, random_supernet, varied_space
from tiny import SOME_EXPAND, tiny_space
from torch.nn import functional

import tfnas
from tfnas import InputError
from tfnas.core.space import Operation, Stage
from tfnas.supernet.extract import estimate_batch_norm, extract_network, supernet_from_state
from tfnas.supernet.supernet import Path, Supernet, one_hot_depths, operations_and_depths


def architecture_at(supernet, operations, depths, widths=None):
    """An architecture with these operations and depths; at the supernet's widths unless told otherwise."""
    own = [row[operation] for row, operation in zip(supernet.widths(), operations, strict=True)]
    return supernet.space.architecture(operations, depths, widths or own, CLASSES)


def snapshot(supernet):
    """Everything a supernet consists of."""
    return copy.deepcopy(supernet.state_dict()), supernet.active_channels()


def assert_unchanged(supernet, before):
    state, active = before
    assert all(torch.equal(value, state[name]) for name, value in supernet.state_dict().items())
    for row, old in zip(supernet.active_channels(), active, strict=True):
        assert all(torch.equal(index, before) for index, before in zip(row, old, strict=True))


def assert_same_logits(supernet, network, operations, depths):
    """Batch statistics on both sides; the supernet's active channels must be the architecture's."""
    images, _ = random_batch(size=6)
    with torch.no_grad():
        expected = supernet(images, Path(tuple(operations)), one_hot_depths(supernet.space.depth_choices, depths))
        logits = network.train()(images)
    assert expected.std(0).min() > 1e-3  # logits that depend on the image
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("operation", range(8))
@pytest.mark.parametrize("depths", [(0, 1), (1, 2)])
def test_every_operation_computes_what_the_supernet_does(float64, operation, depths):
    """Eight operations (kernels, expansions, SE) with random active channels; a skipped stage and all blocks."""
    supernet = random_supernet(varied_space(), seed=operation)
    operations = [operation, (operation + 3) % 8, (operation + 5) % 8]
    before = snapshot(supernet)
    network = extract_network(supernet, architecture_at(supernet, operations, depths))
    assert_unchanged(supernet, before)
    assert_same_logits(supernet, network, operations, depths)


@pytest.mark.parametrize("seed", range(4))
def test_other_widths_keep_the_channels_of_the_largest_kernels(float64, seed):
    """Widths drawn anew; the channels are found here by sorting the sums of absolute kernel values."""
    space, generator = varied_space(), torch.Generator().manual_seed(seed)
    supernet = random_supernet(space, seed)
    operations = torch.randint(8, (3,), generator=generator).tolist()
    widths, twin = [], copy.deepcopy(supernet)
    for number, index in enumerate(operations):
        low, high = space.width_range(space.blocks[number], space.operations[index])
        operation = twin.block_operations(number)[index]
        width = int(torch.randint(low, high + 1, (), generator=generator))
        if width != operation.width:
            sums = [kernel.abs().sum().item() for kernel in operation.depth_conv.weight]
            largest = sorted(range(high), key=lambda channel: -sums[channel])[:width]
            operation.set_active(torch.tensor(largest))
        widths.append(width)
    before = snapshot(supernet)
    assert widths != [row[index] for row, index in zip(supernet.widths(), operations, strict=True)]
    network = extract_network(supernet, architecture_at(supernet, operations, (1, 2), widths))
    assert_unchanged(supernet, before)
    assert_same_logits(twin, network, operations, (1, 2))


def test_a_space_of_other_stages_and_all_channels(float64):
    """Strides of 2 in the middle, operations at maximum width, and a block without expansion: the second stem."""
    stages = Stage(6, 2, 2, "swish"), Stage(6, 1, 2, "relu", min_blocks=0)
    space = dataclasses.replace(varied_space(), stages=stages)
    supernet = random_supernet(space)
    for number, index, operation in supernet.operations():
        operation.set_width(space.width_range(space.blocks[number], space.operations[index])[1])
    operations, depths = [7, 2, 5, 0], (2, 1)
    network = extract_network(supernet, architecture_at(supernet, operations, depths))
    assert network.second_stem.inverted_bottleneck is None
    assert_same_logits(supernet, network, operations, depths)


@pytest.mark.parametrize("seed", range(2))
def test_operations_without_an_expansion_learn_what_their_networks_do(float64, seed):
    """Loss and gradients of a path, against the stand-alone network of nn.Conv2d and nn.BatchNorm2d."""
    supernet = random_supernet(tiny_space(operations=SOME_EXPAND), seed)
    depths = (1, 2)
    for operations in ((0, 2, 1), (2, 3, 0), (2, 0, 2), (3, 2, 2)):
        network = extract_network(supernet, architecture_at(supernet, operations, depths))
        assert_same_logits(supernet, network, operations, depths)
        images, labels = random_batch(size=6)
        weights = one_hot_depths(supernet.space.depth_choices, depths)
        supernet.zero_grad()
        for logits in (supernet(images, Path(operations), weights), network(images)):
            functional.cross_entropy(logits, labels).backward()
        for place, index in zip(supernet.space.blocks, operations, strict=True):
            operation = supernet.block_operations(supernet.space.blocks.index(place))[index]
            block = network.get_submodule(f"stage{place.stage + 1}.{place.position}")
            slices = operation.active_slices()
            for name, parameter in operation.named_parameters():
                own = parameter.grad.index_select(*slices[parameter]) if parameter in slices else parameter.grad
                expected = block.get_parameter(name).grad
                torch.testing.assert_close(own, expected, rtol=1e-8, atol=1e-10 + 1e-9 * float(expected.abs().max()))


def test_the_authors_file_of_an_architecture_will_do():
    """A model.config does not say in which range a width may be fitted; the operations are found all the same."""
    supernet = Supernet(tfnas.space("digits"), CLASSES)
    own = [row[operation] for row, operation in zip(supernet.widths(), [3, 4, 1, 6, 7], strict=True)]
    architecture = supernet.space.architecture([3, 4, 1, 6, 7], (1, 2, 2), own, CLASSES)
    read = tfnas.Architecture.from_model_config(architecture.to_model_config(), image_size=16)
    expected = extract_network(supernet, architecture).state_dict()
    assert all(torch.equal(v, expected[name]) for name, v in extract_network(supernet, read).state_dict().items())


def test_norms_are_fresh_and_weights_are_copies():
    supernet = random_supernet(varied_space())
    network = extract_network(supernet, architecture_at(supernet, [7, 6, 5], (1, 2)))
    assert network.training
    state = network.state_dict()
    fresh = {"bn.weight": 1.0, "bn.bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
    for ending, number in fresh.items():
        values = [value for name, value in state.items() if name.endswith(ending)]
        assert len(values) == 1 + 2 + 3 * 3 + 1  # first and second stem, three blocks, feature mix
        assert all((value == number).all() for value in values)
    before = snapshot(supernet)
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert_unchanged(supernet, before)


def test_extraction_draws_no_random_numbers_and_keeps_the_precision():
    supernet = random_supernet(varied_space()).double()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    network = extract_network(supernet, architecture_at(supernet, [0, 1, 2], (1, 2)))
    assert torch.equal(torch.rand(4), expected)
    assert network.classifier.linear.weight.dtype == network.first_stem.bn.running_mean.dtype == torch.float64


def test_in_eval_mode_it_answers_as_the_supernet_did_once_statistics_are_estimated(float64):
    """On a single batch the estimated statistics are that batch's, but for the unbiased variance."""
    supernet = random_supernet(varied_space())
    operations, depths = [7, 2, 4], (1, 2)
    network = extract_network(supernet, architecture_at(supernet, operations, depths))
    images = torch.randn(400, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    estimate_batch_norm(network, [images])
    with torch.no_grad():
        expected = supernet(images, Path(tuple(operations)), one_hot_depths(supernet.space.depth_choices, depths))
        torch.testing.assert_close(network.eval()(images), expected, rtol=0.02, atol=0.02 * expected.std().item())


def test_an_architecture_of_another_space_is_refused():
    supernet = random_supernet(varied_space())
    fitting = architecture_at(supernet, [0, 1, 2], (1, 2))
    for fields, match in [
        ({"num_classes": 7}, "the supernet has 5 classes, the architecture 7"),
        ({"stages": fitting.stages[1:]}, r"no network whose stages have \[2\] blocks"),
        ({"stages": (fitting.stages[0] * 2, fitting.stages[1])}, r"no network whose stages have \[2, 2\] blocks"),
    ]:
        with pytest.raises(InputError, match=match):
            extract_network(supernet, dataclasses.replace(fitting, **fields))
    with pytest.raises(InputError, match="the first_stem of space digits is conv_"):
        other = Supernet(tfnas.space("digits"), CLASSES)
        extract_network(other, fitting)
    foreign = dataclasses.replace(varied_space(), operations=(Operation(7, 3, False),))
    with pytest.raises(InputError, match=r"stage1\.block1 of space tiny offers no operation like mb_k7_"):
        extract_network(supernet, architecture_at(random_supernet(foreign), [0, 0, 0], (1, 2)))


def test_route_of_gives_back_what_an_architecture_was_made_of():
    supernet = random_supernet(varied_space())
    assert operations_and_depths(supernet.space, architecture_at(supernet, [3, 6, 1], (1, 2))) == ((3, 6, 1), (1, 2))
    assert operations_and_depths(supernet.space, architecture_at(supernet, [3, 6, 1], (0, 1))) == ((0, 6, 0), (0, 1))


def test_a_supernet_is_rebuilt_from_the_state_of_a_search():
    supernet = random_supernet(varied_space())
    state = {
        "space": supernet.space.to_json(),
        "num_classes": CLASSES,
        "supernet": supernet.state_dict(),
        "active": supernet.active_channels(),
    }
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    rebuilt = supernet_from_state(state)
    assert torch.equal(torch.rand(4), expected)
    assert rebuilt.space == supernet.space
    assert_unchanged(rebuilt, snapshot(supernet))
    images, _ = random_batch()
    depth_weights = one_hot_depths(supernet.space.depth_choices, (1, 2))
    route = Path((4, 1, 7))
    assert torch.equal(rebuilt(images, route, depth_weights), supernet(images, route, depth_weights))


def test_a_state_that_is_not_whole_is_refused():
    supernet = random_supernet(varied_space())
    state = {"space": supernet.space.to_json(), "num_classes": CLASSES, "supernet": supernet.state_dict()}
    with pytest.raises(InputError, match="no checkpoint of a search: it has no entry active"):
        supernet_from_state(state)
    with pytest.raises(InputError, match=r"classifier\.linear\.weight has the shape 5 x 8, the network's has 6 x 8"):
        supernet_from_state({**state, "num_classes": 6, "active": supernet.active_channels()})
