"""The runtimes that come along, and one of somebody else's: each computes the module, on the memory of its input."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from made_networks import randomise
from tiny import tiny_space

import tfnas
from tfnas import bench
from tfnas.bench import runtime as runtimes
from tfnas.bench.benches import LocalBench, reference_case
from tfnas.bench.benchmark_cases import block_case, network_case, random_architectures
from tfnas.bench.runtime import open_runtime, runtime_names
from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block
from tfnas.latency.table_contents import Conditions
from tfnas.nn.blocks import MBConv

DOCS = Path(__file__).resolve().parents[2] / "docs" / "runtimes.md"
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed: pip install tfnas[openvino]"
)
ONNX_RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


def small_block(channels=6, mid=10, device="cpu", dtype=torch.float32):
    """A block with random norms and statistics."""
    block = Block(channels, mid, 3, channels, 3, 1, "swish", (mid, mid))
    return randomise(MBConv(block)).requires_grad_(False).to(device, dtype)


def small_input(runtime, channels=6, device="cpu", dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(2, channels, 7, 7, generator=generator).to(device, dtype)
    return values.contiguous(memory_format=runtime.memory_format)


def as_tensor(answer):
    """What a prepared call returned, copied to a tensor on the CPU."""
    if isinstance(answer, list):
        (answer,) = answer
    if isinstance(answer, torch.Tensor):
        return answer.cpu().clone()
    return torch.from_numpy(np.array(answer if isinstance(answer, np.ndarray) else answer.numpy()))


def check_it_computes_anew(conditions, tolerance):
    """It gives what the module gives, again after the input has changed in place; other modules do not disturb it."""
    dtype = getattr(torch, conditions.dtype)
    runtime = open_runtime(conditions)
    module, images = (
        small_block(device=conditions.device, dtype=dtype),
        small_input(runtime, device=conditions.device, dtype=dtype),
    )
    expected_of = small_block(dtype=torch.float64)
    call = runtime.prepare(module, images)
    other_images = small_input(runtime, 5, conditions.device, dtype)
    other = runtime.prepare(small_block(5, 8, conditions.device, dtype), other_images)
    found = []
    with torch.inference_mode():
        for factor in (1.0, -0.5):
            images.mul_(factor)
            runtime.synchronise()
            answer = as_tensor(call())
            other()
            expected = expected_of(images.cpu().double())
            assert answer.dtype == dtype
            assert float((answer.double() - expected).abs().max()) < tolerance * float(expected.abs().max())
            found.append(answer)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 0.02)])
def test_it_computes_the_module_on_refreshed_input(runtime, dtype, tolerance):
    check_it_computes_anew(Conditions(runtime=runtime, batch_size=2, dtype=dtype), tolerance)


def test_pytorch_computes_the_module_on_refreshed_input():
    check_it_computes_anew(Conditions(batch_size=2), 1e-5)


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_results_lie_in_the_same_memory_at_every_call(runtime):
    """Otherwise a call would allocate, which the bench would time."""
    opened = open_runtime(Conditions(runtime=runtime, batch_size=2))
    call = opened.prepare(small_block(), small_input(opened))
    places = set()
    for _ in range(3):
        answer = call()
        places.add(answer[0].data_ptr() if isinstance(answer, list) else answer.ctypes.data)
    assert len(places) == 1


@pytest.mark.parametrize("runtime", ["torch", *ONNX_RUNTIMES])
def test_a_bench_measures_in_it(runtime):
    """Blocks of the digits and a whole network, from opening to visits."""
    space = tfnas.space("digits")
    place, operation = space.blocks[0], space.operations[4]
    width = space.initial_width(place, operation)
    cases = [
        block_case(space.block(place, operation, width), place.input_size),
        network_case(random_architectures(space, 1, 10, seed=0)[0]),
    ]
    bench = LocalBench(Conditions(runtime=runtime), reference_case(space))
    visits = list(bench.measure(cases, [1, 0, 1], calls=2))
    assert [(len(visit.own_ms), len(visit.reference_ms)) for visit in visits] == [(2, 2)] * 3
    assert all(milliseconds > 0 for visit in visits for milliseconds in (*visit.own_ms, *visit.reference_ms))
    assert list(bench.versions) == [runtime] and re.match(r"\d+\.\d+", bench.versions[runtime])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"runtime": "onnxruntime", "dtype": "bfloat16"},
            r"supports the dtypes float32 or float16 on cpu, not 'bfloat16'",
        ),
        ({"runtime": "onnxruntime", "dtype": "float64"}, r"onnxruntime supports the dtypes float32 or float16 on cpu"),
        ({"runtime": "onnxruntime", "device": "mps"}, r"supports the devices cpu or cuda, not 'mps'"),
        ({"runtime": "torch-compile", "device": "tpu"}, "device must be auto, cpu, cuda or cuda:N"),
        ({"runtime": "tensorrt"}, r"no runtime 'tensorrt'; there are .*onnxruntime, openvino, torch, torch-compile"),
        ({"runtime": "../torch"}, "there is no runtime '../torch'"),
        ({"runtime": "--init--"}, "there is no runtime"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(InputError, match=message):
        open_runtime(Conditions(**changes))


@needs_openvino
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, r"the runtime openvino supports the devices cpu, not 'cuda'"),
        ({"dtype": "float64"}, "the runtime openvino supports the dtypes float32 or float16 on cpu, not 'float64'"),
    ],
)
def test_refusals_of_openvino(changes, message):
    with pytest.raises(InputError, match=message):
        open_runtime(Conditions(runtime="openvino", **changes))


def test_a_gpu_that_onnxruntime_was_not_built_for(monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"--device cuda: the installed onnxruntime .* pip install onnxruntime-gpu"):
        open_runtime(Conditions(runtime="onnxruntime", device="cuda"))


@needs_openvino
def test_more_threads_than_openvino_takes():
    """It would quietly take fewer, and the table would say otherwise."""
    runtime = open_runtime(Conditions(runtime="openvino", threads=4096))
    with pytest.raises(InputError, match=r"--threads must be at most .* got 4096"):
        runtime.prepare(small_block(), small_input(runtime))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_library_that_is_not_installed(runtime, monkeypatch):
    """None in sys.modules is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(InputError, match=rf"the runtime {runtime} needs .*: pip install tfnas\[{runtime}\]"):
        open_runtime(Conditions(runtime=runtime))


@pytest.mark.slow
def test_torch_compile():
    """Two blocks, each compiled for its own shape; a third of the first's shape."""
    check_it_computes_anew(Conditions(runtime="torch-compile", batch_size=2), 1e-5)


@pytest.mark.slow
def test_a_block_that_cannot_be_compiled(monkeypatch):
    class Branching(torch.nn.Module):
        def forward(self, features):
            return features + 1 if features.sum() > 0 else features

    runtime = open_runtime(Conditions(runtime="torch-compile"))
    with pytest.raises(InputError, match="the runtime torch-compile cannot compile a benchmark case here: "):
        runtime.prepare(Branching().eval(), torch.ones(1, 2, 3, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "torch-compile"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-2), ("float16", 0.02)])
def test_on_a_gpu(runtime, dtype, tolerance):
    """TensorFloat-32 is on where it is by default, so float32 is not exact."""
    if (
        runtime == "onnxruntime"
        and "CUDAExecutionProvider" not in importlib.import_module(runtime).get_available_providers()
    ):
        pytest.skip("the installed onnxruntime computes on the CPU only: pip install onnxruntime-gpu")
    check_it_computes_anew(Conditions(runtime=runtime, device="cuda", batch_size=2, dtype=dtype), tolerance)


def documented(language):
    """The one code block of docs/runtimes.md in a language."""
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return code


def measure_in(runtime):
    """Measure two blocks of a tiny space in it."""
    space = tiny_space()
    place, operation = space.blocks[0], space.operations[1]
    cases = [
        block_case(space.block(place, operation, width), place.input_size)
        for width in space.width_range(place, operation)
    ]
    bench = LocalBench(Conditions(runtime=runtime), reference_case(space))
    return [len(visit.own_ms) for visit in bench.measure(cases, [0, 1, 0], calls=2)]


@pytest.fixture
def forget_traced():
    """The modules that a test imports under a made-up name are gone afterwards."""
    yield
    for name in [name for name in sys.modules if name.split(".")[-1] in ("traced", "traced_runtime", "my_runtimes")]:
        del sys.modules[name]
    if hasattr(bench, "traced_runtime"):
        del bench.traced_runtime


def test_the_documented_runtime_as_a_package_of_somebody_else(tmp_path, monkeypatch, forget_traced):
    """Written from the docs, offered by the entry point that the docs show."""
    group, name, value = re.fullmatch(
        r'\[project\.entry-points\."(.+)"\]\n(\S+) = "(\S+)"\n', documented("toml")
    ).groups()
    (tmp_path / "my_runtimes").mkdir()
    (tmp_path / "my_runtimes" / "traced.py").write_text(documented("python"))
    monkeypatch.syspath_prepend(tmp_path)
    offered = [EntryPoint(name, value, group)]
    monkeypatch.setattr(runtimes, "entry_points", lambda *, group: [entry for entry in offered if entry.group == group])
    assert "traced" in runtime_names()
    with pytest.raises(InputError, match="traced supports the dtypes float32 or float64 on cpu, not 'float16'"):
        open_runtime(Conditions(runtime="traced", dtype="float16"))
    check_it_computes_anew(Conditions(runtime="traced", batch_size=2), 1e-5)
    assert measure_in("traced") == [2, 2, 2]


def test_the_documented_runtime_as_a_file_in_the_folder(tmp_path, monkeypatch, forget_traced):
    (tmp_path / "traced_runtime.py").write_text(documented("python"))
    monkeypatch.setattr(bench, "__path__", [*bench.__path__, str(tmp_path)])
    assert {"onnxruntime", "openvino", "torch", "torch-compile", "traced"} <= set(runtime_names())
    opened = open_runtime(Conditions(runtime="traced"))
    assert type(opened).__name__ == "TracedRuntime" and opened.versions == {"torch": torch.__version__}
