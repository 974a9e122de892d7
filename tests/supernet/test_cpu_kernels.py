"""Operations by CPU kernels against the same operations layer by layer, in float64."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch.nn import functional

from tfnas.core.mbconv_blocks import Block
from tfnas.nn.blocks import to_maps
from tfnas.supernet.cpu import row_ops
from tfnas.supernet.cpu.mbconv_backward import kernel_gradient, make_workspace
from tfnas.supernet.cpu.mbconv_forward import input_moments
from tfnas.supernet.elastic import ElasticMBConv
from tfnas.supernet.supernet import weighted_sum

# kernel, stride, activation, SE channels, expanded, active share, images, pixels
CASES = [
    (3, 1, "relu", 0, True, 1.0, 3, 7),
    (3, 2, "swish", 0, True, 0.6, 2, 8),
    (5, 1, "swish", 3, True, 0.7, 4, 9),
    (5, 2, "relu", 2, True, 1.0, 3, 7),
    (7, 1, "swish", 2, True, 0.5, 2, 6),
    (3, 1, "relu", 2, False, 1.0, 3, 6),
    (5, 2, "swish", 3, True, 1.0, 1, 1),
    (5, 2, "swish", 0, True, 1.0, 2, 2),
    (3, 1, "swish", 2, True, 0.6, 4, 2),  # few pixels for a block's input: batch norm is not folded
]


pytestmark = pytest.mark.usefixtures("kernels_or_operators")


def operation(kernel, stride, activation, se, expands, share, low_memory=False, out=5, inputs=4):
    """A float64 operation with random biases; active channels at random places."""
    widest = 10 if expands else inputs
    width = max(1, round(share * widest))
    block = Block(inputs, width, se, out, kernel, stride, activation, (width, widest))
    torch.manual_seed(kernel + 10 * stride)
    made = ElasticMBConv(block, low_memory).double()
    made.set_active(torch.randperm(widest)[:width])
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def layers(module, features):
    """The operation's branch by PyTorch's layers."""
    return module._layers(features, module.active_weights())


def results(module, features, call):
    """Output, and the gradients of the input and of all parameters for a random gradient of the output."""
    features = features.clone().requires_grad_()
    output = call(features)
    torch.manual_seed(9)
    wanted = [features, *module.parameters()]
    return [output, *torch.autograd.grad(output, wanted, torch.randn(output.shape, dtype=output.dtype))]


@pytest.mark.parametrize("tile_bytes", [8 * 24, 2**18])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_layers(case, tile_bytes, monkeypatch):
    monkeypatch.setattr(row_ops, "TILE_BYTES", tile_bytes)
    *kind, images, pixels = case
    plain = operation(*kind)
    features = torch.randn(images, plain_inputs(plain), pixels, pixels, dtype=torch.float64) * 3 + 2
    expected = results(plain, features, lambda maps: layers(plain, maps))
    for low_memory, layout in itertools.product((False, True), (torch.contiguous_format, torch.channels_last)):
        tiled = operation(*kind, low_memory=low_memory)
        found = results(tiled, features.contiguous(memory_format=layout), tiled)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * max(1.0, float(other.detach().abs().max())))


def plain_inputs(module):
    first = module.inverted_bottleneck
    return module.max_width if first is None else first.weight.shape[1]


def test_moments_and_residual():
    module = operation(3, 1, "swish", 2, True, 0.8, out=4)
    features = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    moments = input_moments(features)
    channels = features.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(to_maps(moments.centred, 3, 5, 5), features - features.mean((0, 2, 3), True))
    torch.testing.assert_close(moments.covariance, torch.cov(channels, correction=0))
    assert module.has_residual
    torch.testing.assert_close(module(features), features + layers(module, features))


def test_what_needs_no_gradient_keeps_none():
    module = operation(5, 1, "swish", 2, True, 0.8)
    features = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(layers(module, features).square().sum(), features)[0]
    module.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(module(features).square().sum(), features)[0], expected)
    assert not module(features.detach()).requires_grad


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


MIXED = [(5, 1, "swish", 2, True, 0.8), (3, 1, "swish", 0, True, 1.0), (7, 1, "swish", 3, True, 0.4)]
SOME_EXPAND = [(3, 1, "swish", 0, False, 1.0), MIXED[0], (5, 1, "swish", 2, False, 1.0)]


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("out", [4, 5])  # as many as come in, with a residual, and others
@pytest.mark.parametrize("first", [False, True])  # in a network's first block the features are fixed
@pytest.mark.parametrize(
    ("kinds", "size"), [(MIXED, 5), (SOME_EXPAND, 5), (SOME_EXPAND, 2)], ids=["all", "some", "few pixels"]
)
def test_a_mixture_trains_the_weights_it_is_made_with_and_the_features(
    kinds, size, first, out, low_memory, three_threads
):
    modules = [operation(*kind, low_memory, out) for kind in kinds]
    features = torch.randn(2, 4, size, size, dtype=torch.float64, requires_grad=not first)
    weights = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    wanted = [weights] if first else [weights, features]
    added = features if out == 4 else 0
    expected = sum(w * (added + layers(module, features)) for w, module in zip(weights, modules, strict=True))
    output = weighted_sum(modules, features, weights)
    torch.testing.assert_close(output, expected)
    parameters = [parameter for module in modules for parameter in module.parameters()]
    found = torch.autograd.grad(output.square().sum(), [*wanted, *parameters], allow_unused=True)
    for one, other in zip(found, torch.autograd.grad(expected.square().sum(), wanted), strict=False):
        torch.testing.assert_close(one, other)
    assert all(gradient is None for gradient in found[len(wanted) :])


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_mixture_of_operations_that_do_not_expand(low_memory):
    modules = [operation(kernel, 1, "swish", 2, False, 1.0, low_memory, out=4) for kernel in (3, 5)]
    features = torch.randn(2, 4, 7, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 0.9], dtype=torch.float64, requires_grad=True)
    wanted = [weights, features]
    output = weighted_sum(modules, features, weights)
    expected = sum(w * (features + layers(module, features)) for w, module in zip(weights, modules, strict=True))
    torch.testing.assert_close(output, expected)
    found = torch.autograd.grad(output.square().sum(), wanted)
    for one, other in zip(found, torch.autograd.grad(expected.square().sum(), wanted), strict=True):
        torch.testing.assert_close(one, other)


def test_only_weights_need_gradients():
    module = operation(3, 2, "relu", 0, True, 0.8)
    features = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    wanted = list(module.parameters())
    expected = torch.autograd.grad(layers(module, features).square().sum(), wanted)
    found = torch.autograd.grad(module(features).square().sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_saved():
    """Of an operation's maps (expanded 10, depthwise 10, projected 5): the last two, and nothing in low memory."""
    of_an_operation = 10 + 5
    features = torch.randn(2, 4, 16, 16, dtype=torch.float64, requires_grad=True)
    weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
    saved = {}
    for low_memory in (False, True):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.update({tensor.data_ptr(): tensor.numel()}) or tensor, lambda t: t
        ):
            modules = [operation(3, 1, "swish", 0, True, 1.0, low_memory) for _ in weights]
            weighted_sum(modules, features, weights).sum().backward()
        saved[low_memory] = sum(sizes.values())
    pixels = features[:, 0].numel()
    assert saved[False] - saved[True] >= len(weights) * of_an_operation * pixels
    small = 1000  # weights and statistics
    assert saved[True] <= features.numel() + small
    assert saved[False] <= 2 * features.numel() + len(weights) * of_an_operation * pixels + small


def test_an_operation_in_low_memory_keeps_its_input_alone():
    module = operation(5, 2, "swish", 2, True, 0.8, low_memory=True)
    features = torch.randn(2, 4, 16, 16, dtype=torch.float64, requires_grad=True)
    saved = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.update({t.data_ptr(): t.numel()}) or t, lambda t: t):
        module(features).sum().backward()
    weights = sum(parameter.numel() for parameter in module.parameters())
    assert features.numel() <= sum(saved.values()) <= features.numel() + weights


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 4, 8, 6), (3, 2, 1, 1), (2, 1, 2, 5)])
def test_kernel_gradient(size, stride, shape):
    torch.manual_seed(1)
    features = torch.randn(shape, dtype=torch.float64)
    weight = torch.randn(shape[1], 1, size, size, dtype=torch.float64, requires_grad=True)
    output = functional.conv2d(features, weight, stride=stride, padding=size // 2, groups=shape[1])
    gradient = torch.randn_like(output)
    expected = torch.autograd.grad(output, weight, gradient)[0]
    features = features.contiguous(memory_format=torch.channels_last)
    filled, left = (make_workspace(gradient, features, size, copy) for copy in (True, False))
    left.maps.copy_(features)
    for workspace in (filled, left):
        found = kernel_gradient(gradient, workspace, weight.detach(), stride)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 3.0, 30.0])
def test_single_precision_is_as_close_as_the_layers(offset):
    """Folding batch norm must not cost digits, however far the inputs are from zero."""
    exact = operation(5, 1, "swish", 2, True, 0.7)
    features = torch.randn(4, 4, 9, 9, dtype=torch.float64) + offset
    single = copy.deepcopy(exact).float()
    with torch.no_grad():
        truth = layers(exact, features)
        of_layers = (layers(single, features.float()) - truth).abs().max()
        of_tiles = (single(features.float()) - truth).abs().max()
    assert of_tiles < 10 * of_layers + 1e-6
