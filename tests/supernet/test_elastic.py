from __future__ import annotations

import pytest
import torch

from tfnas import InputError
from tfnas.core.mbconv_blocks import Block
from tfnas.nn.blocks import MBConv
from tfnas.supernet.elastic import ElasticMBConv, batch_normalize

WIDE = 12


def elastic_block(in_channels=4, out_channels=4, stride=1, se=3, kernel=3, mid=WIDE):
    """An elastic block at maximum width with random weights and biases."""
    block = Block(in_channels, mid, se, out_channels, kernel, stride, "swish", (mid, mid))
    module = ElasticMBConv(block)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def plain_block(elastic, index):
    """The stand-alone block with the weights of the channels `index`; in training mode its norms use the batch."""
    reduce = elastic.squeeze_excite.conv_reduce if elastic.squeeze_excite else None
    block = Block(
        in_channels=elastic.inverted_bottleneck.weight.shape[1],
        mid_channels=len(index),
        se_channels=reduce.out_channels if reduce else 0,
        out_channels=elastic.point_linear.weight.shape[0],
        kernel_size=elastic.kernel_size,
        stride=elastic.stride,
        activation="swish",
        mid_range=(len(index), len(index)),
    )
    plain = MBConv(block).train()
    with torch.no_grad():
        plain.inverted_bottleneck.conv.weight.copy_(elastic.inverted_bottleneck.weight[index])
        plain.depth_conv.conv.weight.copy_(elastic.depth_conv.weight[index])
        plain.point_linear.conv.weight.copy_(elastic.point_linear.weight[:, index])
        if reduce:
            expand = elastic.squeeze_excite.conv_expand
            plain.squeeze_excite.conv_reduce.weight.copy_(reduce.weight[:, index])
            plain.squeeze_excite.conv_reduce.bias.copy_(reduce.bias)
            plain.squeeze_excite.conv_expand.weight.copy_(expand.weight[index])
            plain.squeeze_excite.conv_expand.bias.copy_(expand.bias[index])
    return plain


@pytest.mark.parametrize("index", [[0, 1, 2, 3, 4], [1, 5, 6, 8, 11], list(range(WIDE))])
@pytest.mark.parametrize("shape", [
    {}, {"se": 0}, {"kernel": 5}, {"stride": 2}, {"out_channels": 6, "kernel": 5, "stride": 2, "se": 0},
])  # fmt: skip
def test_elastic_block_equivalence(float64, shape, index):
    torch.manual_seed(0)
    elastic, features = elastic_block(**shape), torch.randn(3, 4, 7, 7)
    elastic.set_active(torch.tensor(index))
    plain = plain_block(elastic, index)
    torch.testing.assert_close(elastic(features), plain(features), rtol=1e-11, atol=1e-12)


def test_gradients_reach_the_active_entries_only(float64):
    torch.manual_seed(0)
    elastic, features = elastic_block(), torch.randn(3, 4, 7, 7)
    index = [1, 2, 5, 7, 9, 10]
    elastic.set_active(torch.tensor(index))
    plain = plain_block(elastic, index)
    probe = torch.randn(3, 4, 7, 7)
    (elastic(features) * probe).sum().backward()
    (plain(features) * probe).sum().backward()
    gradient = torch.zeros_like(elastic.depth_conv.weight)
    gradient[index] = plain.depth_conv.conv.weight.grad
    torch.testing.assert_close(elastic.depth_conv.weight.grad, gradient, rtol=1e-9, atol=1e-10)
    gradient = torch.zeros_like(elastic.point_linear.weight)
    gradient[:, index] = plain.point_linear.conv.weight.grad
    torch.testing.assert_close(elastic.point_linear.weight.grad, gradient, rtol=1e-9, atol=1e-10)


def test_evaluation_uses_the_statistics_of_the_batch_too(float64):
    elastic, features = elastic_block(), torch.randn(3, 4, 7, 7)
    assert torch.equal(elastic.train()(features), elastic.eval()(features))
    assert {name for name, _ in elastic.named_buffers()} == {"active"}
    assert "active" not in elastic.state_dict()


def test_the_channels_with_the_largest_depthwise_kernels_stay_active():
    elastic = elastic_block()
    with torch.no_grad():
        elastic.depth_conv.weight.copy_(torch.ones(WIDE, 1, 3, 3))
        for channel, scale in enumerate([5, -9, 1, 2, -7, 3, 1, 1, 8, -4, 1, 1]):
            elastic.depth_conv.weight[channel] *= scale
    elastic.set_width(5)
    assert elastic.active.tolist() == [0, 1, 4, 8, 9]
    elastic.set_width(8)
    assert elastic.active.tolist() == [0, 1, 2, 3, 4, 5, 8, 9]  # among equals the first
    assert elastic.width == 8


def test_the_norm_is_l1():
    elastic = elastic_block(mid=5)
    with torch.no_grad():
        elastic.depth_conv.weight.zero_()
        elastic.depth_conv.weight[:, 0, 0, 0] = torch.tensor([3.0, 0.1, 0.1, 0.1, 0.1])  # L1 3, L2 3
        elastic.depth_conv.weight[1] = 0.5  # L1 4.5, L2 1.5
    elastic.set_width(1)
    assert elastic.active.tolist() == [1]


@pytest.mark.parametrize("index", [[], [-1, 2], [3, WIDE], [2, 2]])
def test_channels_that_do_not_fit_are_refused(index):
    elastic = elastic_block()
    with pytest.raises(InputError, match="distinct indices below 12"):
        elastic.set_active(torch.tensor(index, dtype=torch.int64))
    assert elastic.width == WIDE


def test_an_operation_without_an_expansion_has_the_width_of_its_input():
    block = Block(4, 4, 0, 6, 3, 1, "relu", (4, 4))
    elastic = ElasticMBConv(block)
    for narrow in (lambda: elastic.set_active(torch.tensor([0, 2, 3])), lambda: elastic.set_width(3)):
        with pytest.raises(InputError, match="as many active channels as it has inputs, 4, got 3"):
            narrow()
    elastic.set_width(4)
    assert elastic.active.tolist() == [0, 1, 2, 3] and elastic.active_slices() == {}


@pytest.mark.parametrize("width", [0, WIDE + 1])
def test_a_width_that_does_not_fit_is_refused(width):
    with pytest.raises(InputError, match=f"must be 1 to 12, got {width}"):
        elastic_block().set_width(width)


def test_active_slices_name_what_is_used_in_part():
    elastic = elastic_block()
    assert elastic.active_slices() == {}
    elastic.set_active(torch.tensor([7, 2]))
    rows = {name: elastic.active_slices().get(parameter) for name, parameter in elastic.named_parameters()}
    assert {name: row.dim for name, row in rows.items() if row is not None} == {
        "inverted_bottleneck.conv.weight": 0,
        "depth_conv.conv.weight": 0,
        "squeeze_excite.conv_reduce.weight": 1,
        "squeeze_excite.conv_expand.weight": 0,
        "squeeze_excite.conv_expand.bias": 0,
        "point_linear.conv.weight": 1,
    }
    assert rows["squeeze_excite.conv_reduce.bias"] is None  # used whole
    assert all(row.indices.tolist() == [2, 7] for row in rows.values() if row is not None)


def test_a_single_value_per_channel_becomes_zero():
    features = torch.randn(1, 3, 1, 1)
    assert batch_normalize(features).abs().max() < 1e-4
    many = torch.randn(5, 3, 2, 2)
    expected = torch.nn.functional.batch_norm(many, None, None, training=True)
    assert torch.equal(batch_normalize(many), expected)
