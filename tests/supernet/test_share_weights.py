from __future__ import annotations

import copy

import pytest
import torch
from made_learners import random_supernet, varied_space
from tiny import SOME_EXPAND, tiny_space
from torch.nn import functional

from tfnas.core.space import Operation
from tfnas.searching.differentiable.optimizers import ElasticSGD
from tfnas.supernet.supernet import Path, share_weights


def operation_states(supernet, place, count):
    """Of every operation of a block, its tensors by name."""
    prefix = f"{place.name}.m_ops."
    states = [{} for _ in range(count)]
    for name, value in supernet.state_dict().items():
        if name.startswith(prefix):
            number, _, rest = name[len(prefix) :].partition(".")
            states[int(number)][rest] = value
    return states


def part_of(whole, like):
    """The first channels and the centre of the kernel, by indexing."""
    rim = (whole.shape[2] - like.shape[2]) // 2 if like.dim() == 4 else 0
    if rim:
        whole = whole[:, :, rim:-rim, rim:-rim]
    return whole[tuple(slice(size) for size in like.shape)]


@pytest.mark.parametrize(
    "space",
    [
        varied_space(),  # the last operation, the widest with the largest kernel and SE, holds all others
        tiny_space(operations=(Operation(5, 2, False), Operation(3, 4, False))),  # no operation holds the other
    ],
    ids=["one holds all", "none holds all"],
)
def test_what_operations_have_in_common_is_the_same_memory(space, float64):
    supernet = random_supernet(space)
    share_weights(supernet)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(torch.rand_like(parameter))  # an update of one is seen in all
    for place in space.blocks:
        states = operation_states(supernet, place, len(space.operations))
        for name in states[-1]:
            tensors = [state[name] for state in states if name in state]
            for one in tensors:
                for other in tensors:
                    smaller = torch.Size(map(min, one.shape, other.shape))
                    like = torch.empty(smaller)
                    assert torch.equal(part_of(one, like), part_of(other, like)), (place.name, name)


def test_operations_without_an_expansion_share_with_each_other_alone(float64):
    """Their channels are the block's input, not what an expansion makes of it."""
    space = tiny_space(operations=SOME_EXPAND)
    supernet = random_supernet(space)
    share_weights(supernet)
    for place in space.blocks:
        narrow, wide, large_narrow, large_wide = operation_states(supernet, place, 4)
        for small, large in ((narrow, large_narrow), (wide, large_wide)):
            for name, value in small.items():
                assert torch.equal(value, part_of(large[name], value)), (place.name, name)
        assert large_narrow.keys() == large_wide.keys() - {"inverted_bottleneck.conv.weight"}
        memory = [{value.untyped_storage().data_ptr() for value in state.values()} for state in (narrow, large_narrow)]
        others = {value.untyped_storage().data_ptr() for state in (wide, large_wide) for value in state.values()}
        assert memory[0] < memory[1] and not memory[1] & others


def test_weights_outside_the_blocks_stay(float64):
    supernet = random_supernet(varied_space())
    before = copy.deepcopy(supernet.state_dict())
    share_weights(supernet)
    for name, value in supernet.state_dict().items():
        if ".m_ops." not in name:
            assert torch.equal(value, before[name]), name
        elif name.endswith("bias"):
            assert not value.any()


def test_loading_a_state_keeps_weights_shared(float64):
    supernet = random_supernet(varied_space())
    share_weights(supernet)
    state = {name: value.clone() for name, value in supernet.state_dict().items()}
    other = random_supernet(varied_space())
    share_weights(other)
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name
    with torch.no_grad():
        other.block_operations(0)[0].point_linear.weight.zero_()
    widest = other.block_operations(0)[-1].point_linear.weight
    assert not widest[:, : other.block_operations(0)[0].max_width].any()


def test_a_step_along_two_paths_is_that_of_the_weights_they_share(float64):
    """Without momentum, as if the operations were slices taken inside the forward pass, which autograd adds up."""
    space = varied_space()
    paths = [Path((0,) * len(space.blocks)), Path((len(space.operations) - 1,) * len(space.blocks))]
    supernet = random_supernet(space)
    share_weights(supernet)
    images, labels = torch.randn(6, 3, 16, 16), torch.arange(6) % 4
    depths = [torch.full((len(choices),), 1 / len(choices)) for choices in space.depth_choices]
    before = copy.deepcopy(supernet.state_dict())
    separate = []
    for path in paths:
        loss = functional.cross_entropy(supernet(images, path, depths), labels)
        named = {name: value for name, value in supernet.named_parameters() if ".m_ops." in name}
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        separate.append({name: value for name, value in zip(named, found, strict=True) if value is not None})
    optimizer = ElasticSGD(supernet.parameters(), supernet.active_slices, lr=0.5, momentum=0.0, weight_decay=0.0)
    for path in paths:
        functional.cross_entropy(supernet(images, path, depths), labels).backward()
    optimizer.step()
    last = len(space.operations) - 1
    for place in space.blocks:
        for name, after in operation_states(supernet, place, len(space.operations))[last].items():
            whole = f"{place.name}.m_ops.{last}.{name}"
            expected = before[whole] - 0.5 * separate[1][whole]
            small = f"{place.name}.m_ops.0.{name}"
            if small in separate[0]:
                part_of(expected, separate[0][small]).sub_(0.5 * separate[0][small])
            torch.testing.assert_close(after, expected, rtol=1e-12, atol=1e-12)
