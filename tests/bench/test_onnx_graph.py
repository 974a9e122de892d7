"""Modules written as ONNX: the graph gives what the module gives, norms unfolded, in evaluation mode."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from made_networks import randomise
from onnx.reference import ReferenceEvaluator
from tiny import tiny_space
from torch import nn

from tfnas.bench.benchmark_cases import random_architectures
from tfnas.bench.onnx_graph import module_to_onnx
from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block, Conv
from tfnas.nn.blocks import Classifier, ConvBN, ConvBNAct, MBConv, SqueezeExcite
from tfnas.nn.network import Network

SIZE = 7  # odd: a stride of 2 and wrong padding show


def block(channels, mid, se, out, kernel_size, stride, activation):
    return Block(channels, mid, se, out, kernel_size, stride, activation, (mid, mid))


def tiny_architecture():
    """Two stages of three blocks: both activations and squeeze-and-excite in some."""
    return random_architectures(tiny_space(), 1, 5, seed=3)[0]


MODULES = {
    "residual": (lambda: MBConv(block(6, 10, 0, 6, 3, 1, "relu"), 0.5), 6),
    "residual, SE": (lambda: MBConv(block(6, 11, 4, 6, 5, 1, "swish"), 0.5), 6),
    "stride": (lambda: MBConv(block(6, 12, 0, 9, 5, 2, "swish")), 6),
    "stride, SE, kernel of 7": (lambda: MBConv(block(6, 12, 3, 6, 7, 2, "relu")), 6),
    "no expansion": (lambda: MBConv(block(6, 6, 0, 9, 3, 1, "swish")), 6),
    "no expansion, residual, SE": (lambda: MBConv(block(6, 6, 2, 6, 3, 1, "relu"), 0.5), 6),
    "stem": (lambda: ConvBNAct(Conv(3, 6, 3, 2, "relu")), 3),
    "feature mix": (lambda: ConvBNAct(Conv(6, 9, 1, 1, "swish")), 6),
    "groups without activation": (lambda: ConvBN(6, 9, 3, groups=3), 6),
    "squeeze-and-excite": (lambda: SqueezeExcite(6, 2, "swish"), 6),
    "classifier": (lambda: Classifier(6, 5, 0.5), 6),
    "blocks in a row": (lambda: nn.Sequential(*(MBConv(block(6, 8, 2, 6, 3, 1, "swish")) for _ in range(2))), 6),
    "network": (lambda: Network(tiny_architecture(), dropout_rate=0.5, drop_connect_rate=0.5), 3),
}


def made(name, dtype=torch.float32, batch_size=2):
    """A module with random weights, norms and running statistics, and an input."""
    make, channels = MODULES[name]
    module = randomise(make(), seed=1).to(dtype)
    generator = torch.Generator().manual_seed(2)
    return module, torch.randn(batch_size, channels, SIZE, SIZE, generator=generator, dtype=torch.float64).to(dtype)


def run(data, images):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": images.numpy()})
    return torch.from_numpy(output)


@pytest.mark.parametrize("name", MODULES)
def test_onnxruntime_gives_what_the_module_gives(name):
    module, images = made(name)
    with torch.no_grad():
        expected = module(images)
    found = run(module_to_onnx(module, images), images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", MODULES)
def test_in_double_precision_it_is_exact(name):
    """ONNX's own reference implementation; onnxruntime has no float64 convolution on the CPU."""
    module, images = made(name, torch.float64)
    with torch.no_grad():
        expected = module(images)
    model = onnx.load_model_from_string(module_to_onnx(module, images))
    (output,) = ReferenceEvaluator(model).run(None, {"input": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(output.copy()), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["residual, SE", "network"])
def test_in_half_precision(name):
    """Weights and input in 16 bits: of 11 significant bits, a few are lost on the way."""
    module, images = made(name, torch.float16)
    with torch.no_grad():
        expected = module.double()(images.double())
    data = module_to_onnx(module.half(), images)
    graph = onnx.load_model_from_string(data).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64} and onnx.TensorProto.FLOAT16 in kinds
    found = run(data, images)
    assert found.dtype == torch.float16
    assert float((found.double() - expected).abs().max()) < 0.02 * float(expected.abs().max())


def test_it_is_valid_onnx_of_static_shape():
    module, images = made("network", batch_size=3)
    model = onnx.load_model_from_string(module_to_onnx(module, images))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10  # what onnxruntime 1.18 reads
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    (given,), (result,) = model.graph.input, model.graph.output
    assert [entry.dim_value for entry in given.type.tensor_type.shape.dim] == [3, 3, SIZE, SIZE]
    assert [entry.dim_value for entry in result.type.tensor_type.shape.dim] == [3, 5]


def test_its_nodes_are_those_of_an_exported_file():
    """Held against what `tfnas export` writes for the same network, in the same order."""
    from tfnas.export.exported_files import onnx_bytes, without_batch_norm

    module, images = made("network")
    with torch.no_grad():
        program = torch.export.export(without_batch_norm(module).requires_grad_(False), (images,))
    exported = onnx.load_model_from_string(onnx_bytes(program, {})).graph
    written = onnx.load_model_from_string(module_to_onnx(module, images)).graph
    assert [node.op_type for node in written.node] == [node.op_type for node in exported.node]
    assert {"Conv", "Relu", "Sigmoid", "Mul", "GlobalAveragePool", "Add", "Reshape", "Gemm"} == {
        node.op_type for node in written.node
    }


class Doubled(MBConv):
    """A block of someone else, which must not be taken for ours."""

    def forward(self, features):
        return 2 * super().forward(features)


def test_other_modules_go_through_the_exporter():
    """Also where they are derived from ours, or stand among ours."""
    module = nn.Sequential(MBConv(block(6, 8, 0, 6, 3, 1, "relu")), Doubled(block(6, 8, 0, 6, 3, 1, "relu")), nn.Tanh())
    module = randomise(module)
    images = torch.randn(2, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(images)
    data = module_to_onnx(module, images)
    torch.testing.assert_close(run(data, images), expected, rtol=1e-4, atol=1e-5)
    assert [entry.name for entry in onnx.load_model_from_string(data).graph.input] == ["input"]


def test_the_module_stays_as_it_is():
    module, images = made("residual, SE")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module_to_onnx(module, images)
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())


def test_a_number_type_that_onnx_has_no_convolutions_for():
    module, images = made("residual", torch.bfloat16)
    with pytest.raises(InputError, match=r"--dtype must be one of float32, float16, float64 .* got bfloat16"):
        module_to_onnx(module, images)
