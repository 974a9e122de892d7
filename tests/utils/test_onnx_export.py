"""Means over pixels become GlobalAveragePool: the same results, and everything else stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from tfnas.utils.onnx_export import exported, use_global_average_pool


def mean_graph(axes, *, keepdims=1, rank=4, opset=18, shared=False):
    """A ReduceMean between two Neg; `shared` gives the axes to a second one, over features without pixels."""
    shape = (2, 3, 4, 5, 6)[:rank]
    constants = []
    if opset < 18:
        mean = helper.make_node("ReduceMean", ["negative"], ["mean"], "mean", axes=axes, keepdims=keepdims)
    else:
        constants = [numpy_helper.from_array(np.array(axes, np.int64), "axes")]
        mean = helper.make_node("ReduceMean", ["negative", "axes"], ["mean"], "mean", keepdims=keepdims)
    first, last = helper.make_node("Neg", ["features"], ["negative"]), helper.make_node("Neg", ["mean"], ["means"])
    nodes = [first, mean, last]
    results = [helper.make_tensor_value_info("means", TensorProto.FLOAT, None)]
    if shared:
        nodes.append(helper.make_node("Shape", ["axes"], ["count"]))
        results.append(helper.make_tensor_value_info("count", TensorProto.INT64, [1]))
    given = helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "means", [given], results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True), shape


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, -2], [2, -1]])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_pixels_is_a_pool(opset, axes, keepdims):
    model, shape = mean_graph(axes, keepdims=keepdims, opset=opset)
    use_global_average_pool(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert operators(model) == ["Neg", "GlobalAveragePool", *([] if keepdims else ["Flatten"]), "Neg"]
    assert not model.graph.initializer  # nothing needs the axes any more
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = features.astype(np.float64).mean(axis=(2, 3), keepdims=bool(keepdims))
    (found,) = ReferenceEvaluator(model).run(None, {"features": features})
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.shape == expected.shape


@pytest.mark.parametrize(
    ("axes", "rank"), [([1, 2], 4), ([3], 4), ([1, 2, 3], 4), ([2, 3], 5), ([1, 2], 3), ([-1, -2], 5)]
)
@pytest.mark.parametrize("opset", [13, 18])
def test_other_means_stay(axes, rank, opset):
    model, _ = mean_graph(axes, rank=rank, opset=opset)
    before = model.SerializeToString(deterministic=True)
    use_global_average_pool(model.graph)
    assert model.SerializeToString(deterministic=True) == before


def test_a_mean_of_a_tensor_whose_rank_is_not_stated_stays():
    model, _ = mean_graph([2, 3])
    del model.graph.value_info[:]
    use_global_average_pool(model.graph)
    assert operators(model) == ["Neg", "ReduceMean", "Neg"]


def test_axes_that_another_node_needs_stay():
    model, _ = mean_graph([2, 3], shared=True)
    use_global_average_pool(model.graph)
    assert operators(model) == ["Neg", "GlobalAveragePool", "Neg", "Shape"]
    assert [tensor.name for tensor in model.graph.initializer] == ["axes"]


class Means(nn.Module):
    """Three ways to write the same pool."""

    def forward(self, features):
        """Means N x 3C of N x C x H x W."""
        adaptive = nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
        return torch.cat([features.mean((2, 3)), features.mean((-2, -1), keepdim=True).flatten(1), adaptive], 1)


def test_exported_files_pool_with_a_batch_of_any_size():
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Means(), (torch.zeros(2, 3, 5, 4),), dynamic_shapes=shapes)
    model = exported(program, (), "features", "means")
    assert operators(model).count("GlobalAveragePool") == 3 and "ReduceMean" not in operators(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        features = np.random.default_rng(batch).standard_normal((batch, 3, 5, 4)).astype(np.float32)
        (found,) = session.run(None, {"features": features})
        np.testing.assert_allclose(found, np.tile(features.mean(axis=(2, 3)), 3), atol=1e-6)
