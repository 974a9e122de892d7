from __future__ import annotations

import torch
from made_learners import random_supernet, varied_space
from tiny import tiny_space

from tfnas.space import Operation
from tfnas.supernet import align_operations


def copies(supernet):
    return {name: value.clone() for name, value in supernet.state_dict().items()}


def test_operations_start_as_slices_of_the_widest_with_the_largest_kernel(float64):
    space = varied_space()  # k3_e2 k3_e4 k5_e2 k5_e4, then the same with SE: the first of the widest is k5_e4
    supernet = random_supernet(space)
    before = copies(supernet)
    align_operations(supernet)
    after = supernet.state_dict()
    for place in space.blocks:
        model = f"{place.name}.m_ops.3."
        for index, operation in enumerate(space.operations):
            own = f"{place.name}.m_ops.{index}."
            width = space.width_range(place, operation)[1]
            rim = (5 - operation.kernel_size) // 2
            kernel = before[model + "depth_conv.conv.weight"][:width]
            if rim:
                kernel = kernel[:, :, 1:4, 1:4]
            expand = before[model + "inverted_bottleneck.conv.weight"]
            project = before[model + "point_linear.conv.weight"]
            assert torch.equal(after[own + "inverted_bottleneck.conv.weight"], expand[:width])
            assert torch.equal(after[own + "depth_conv.conv.weight"], kernel)
            assert torch.equal(after[own + "point_linear.conv.weight"], project[:, :width])


def test_everything_else_stays(float64):
    supernet = random_supernet(varied_space())
    before = copies(supernet)
    align_operations(supernet)
    for name, value in supernet.state_dict().items():
        if ".m_ops." not in name or "squeeze_excite" in name or ".m_ops.3." in name:
            assert torch.equal(value, before[name]), name


def test_a_larger_kernel_on_a_narrower_operation_keeps_its_rim(float64):
    space = tiny_space(operations=(Operation(5, 2, False), Operation(3, 4, False)))
    supernet = random_supernet(space)
    before = copies(supernet)
    align_operations(supernet)
    wide = space.width_range(space.blocks[0], space.operations[0])[1]
    name = "stage1.block1.m_ops.{}.depth_conv.conv.weight"
    expected = before[name.format(0)].clone()
    expected[:, :, 1:4, 1:4] = before[name.format(1)][:wide]
    assert torch.equal(supernet.state_dict()[name.format(0)], expected)
