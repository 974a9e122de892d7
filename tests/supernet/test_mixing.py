"""A block's operations grouped, as on a GPU, against the same operations layer by layer, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from tfnas.core.mbconv_blocks import Block
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import weighted_sum

pytestmark = pytest.mark.usefixtures("as_on_a_gpu")

INPUTS = 4
# (kernel, SE channels, active channels) of every operation of a block; at most 10 channels, None: not expanded
BLOCKS = {
    "of every kind": [(3, 0, 6), (5, 0, 10), (3, 2, 7), (5, 3, 9), (3, 3, 5), (5, 0, 8)],
    "all excited": [(3, 2, 10), (3, 3, 6), (5, 1, 7)],
    "none excited": [(5, 0, 7), (3, 0, 10), (7, 0, 5)],
    "one": [(5, 2, 8)],
    "some expand": [(3, 0, None), (5, 3, 9), (3, 2, 7), (3, 3, None), (5, 1, None), (3, 0, 6), (7, 2, None)],
    "some excited expand": [(3, 2, 7), (3, 2, None), (3, 3, None)],
    "some plain expand": [(5, 0, None), (5, 0, 7), (5, 0, None)],
    "none expands": [(3, 0, None), (3, 2, None), (5, 0, None)],
}


def block_of(kinds, stride=1, out=5, activation="swish", low_memory=False):
    """Operations with random weights and biases and active channels at random places."""
    torch.manual_seed(len(kinds) + stride)
    made = []
    for kernel, se, width in kinds:
        width, widest = (width, 10) if width else (INPUTS, INPUTS)
        block = Block(INPUTS, width, se, out, kernel, stride, activation, (width, widest))
        made.append(ElasticMBConv(block, low_memory).double())
        made[-1].set_active(torch.randperm(widest)[:width])
        for parameter in made[-1].parameters():
            torch.nn.init.normal_(parameter)
    return made


def inputs(kinds, learns=True, size=7):
    features = torch.randn(3, INPUTS, size, size, dtype=torch.float64) * 3 + 2
    scalars = torch.linspace(-0.4, 0.9, len(kinds), dtype=torch.float64)
    return features.requires_grad_(learns), scalars.requires_grad_()


def layer_by_layer(operations, features, scalars):
    total = 0
    for operation, scalar in zip(operations, scalars, strict=True):
        branch = operation._layers(features, operation.active_weights())
        total = total + scalar * (features + branch if operation.has_residual else branch)
    return total


def check(operations, features, scalars):
    """Output and gradients, and none of the operations' own."""
    expected, found = (way(operations, features, scalars) for way in (layer_by_layer, weighted_sum))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    gradient = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(3))
    wanted = [one for one in (features, scalars) if one.requires_grad]
    parameters = [parameter for operation in operations for parameter in operation.parameters()]
    gradients = torch.autograd.grad(found, [*wanted, *parameters], gradient, allow_unused=True)
    for one, other in zip(gradients, torch.autograd.grad(expected, wanted, gradient), strict=False):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert all(gradient is None for gradient in gradients[len(wanted) :])


@pytest.mark.parametrize("activation", ["relu", "swish"])
@pytest.mark.parametrize(("stride", "out"), [(1, 5), (1, INPUTS), (2, 5)])
@pytest.mark.parametrize("kinds", BLOCKS.values(), ids=BLOCKS)
def test_equals_the_layers(kinds, stride, out, activation):
    operations = block_of(kinds, stride, out, activation)
    assert operations[0].has_residual == (out == INPUTS)
    for size, layout in ((7, torch.channels_last), (6, torch.contiguous_format), (1, torch.channels_last)):
        features, scalars = inputs(kinds, size=size)
        check(operations, features.contiguous(memory_format=layout), scalars)


def test_fixed_features_get_no_gradient():
    check(block_of(BLOCKS["of every kind"]), *inputs(BLOCKS["of every kind"], learns=False))


def test_weights_and_active_channels_may_change():
    operations = block_of(BLOCKS["of every kind"])
    features, scalars = inputs(operations)
    check(operations, features, scalars)
    with torch.no_grad():
        operations[3].point_linear.weight.mul_(-2)
    check(operations, features, scalars)
    operations[2].set_width(3)
    operations[3].set_active(operations[3].active.flip(0)[1:])
    check(operations, features, scalars)
    alike = copy.deepcopy(operations)
    alike[0].set_width(2)
    check(alike, features, scalars)
    check(operations, features, scalars)


@pytest.mark.parametrize("kinds", ["of every kind", "some expand"])
@pytest.mark.parametrize("mixed", [False, True])
def test_lower_precision_of_the_same_operations(kinds, mixed):
    operations = block_of(BLOCKS[kinds])
    features, scalars = inputs(operations)
    expected = weighted_sum(operations, features, scalars)
    for operation in operations:
        operation.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = weighted_sum(operations, features.float(), scalars.float())
    if mixed:
        assert (found.double() - expected).abs().mean() < 0.02 * expected.abs().mean()
    else:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kinds", [BLOCKS["of every kind"], BLOCKS["some expand"]], ids=["all expand", "some expand"])
def test_one_depthwise_convolution_for_each_kernel(kinds, monkeypatch):
    operations, kernels = block_of(kinds), []
    convolve = functional.conv2d

    def seen(features, weight, *arguments, **others):
        if others.get("groups", 1) > 1:
            kernels.append(weight.shape[-1])
        return convolve(features, weight, *arguments, **others)

    monkeypatch.setattr(functional, "conv2d", seen)
    weighted_sum(operations, *inputs(kinds))
    assert kernels == sorted({kernel for kernel, *_ in kinds})


def test_low_memory_computes_one_operation_after_the_other():
    kinds = BLOCKS["of every kind"]
    operations = block_of(kinds, low_memory=True)
    features, scalars = inputs(kinds)
    check(operations, features, scalars)
    kept = {}
    for low_memory in (False, True):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.update({tensor.data_ptr(): tensor.numel()}) or tensor, lambda t: t
        ):
            weighted_sum(block_of(kinds, low_memory=low_memory), features, scalars).sum().backward()
        kept[low_memory] = sum(sizes.values())
    maps = sum(width for *_, width in kinds) * features[:, 0].numel()
    assert kept[True] < features.numel() + maps / 2 < maps < kept[False]


@pytest.mark.parametrize("kind", [(3, 0, 6), (5, 2, 7), (5, 3, 10)])
@pytest.mark.parametrize("low_memory", [False, True])
def test_an_operation_alone_learns_as_by_layers(kind, low_memory):
    """Its weights are taken out of all its parameters at once."""
    (operation,) = block_of([kind], low_memory=low_memory)
    features, _ = inputs([kind])
    wanted = [features, *operation.parameters()]
    for _ in range(2):
        ways = (operation, lambda maps: operation._layers(maps, operation.active_weights()))
        found, expected = (torch.autograd.grad(way(features).square().sum(), wanted) for way in ways)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        operation.set_width(4)
