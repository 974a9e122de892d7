"""ONNX files against the network in PyTorch, normalised by hand and with its batch norms in place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from made_models import DIGITS, made_model, plain_logits, random_pixels, write_run

import tfnas
from tfnas import ExportConfig, InputError, OnnxModel, RunFailed, export_model
from tfnas.export.export_checks import GraphOutputs, check_outputs

OLDEST_FORMS = {14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}
"""The first version of the file's form that has these operators, by ONNX's list of releases."""
SLOW_OPSETS = [pytest.param(opset, marks=pytest.mark.slow) for opset in (15, 16, 18, 19, 20, 21, 23, 24, 25, 26)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The run's folder, its model, and the report of a float32 export with every default."""
    run = tmp_path_factory.mktemp("run")
    model = write_run(run)
    return run, model, export_model(ExportConfig(model_path=str(run)))


def session_logits(path, images):
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(found)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_gives_what_pytorch_gives(exported, count):
    run, model, _ = exported
    pixels = random_pixels(count)
    found = session_logits(run / "model.onnx", pixels.float() / 255)
    torch.testing.assert_close(found, plain_logits(model, pixels), rtol=1e-5, atol=1e-5)


def test_the_graph(exported):
    run, _, _ = exported
    model = onnx.load(run / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    operations = [node.op_type for node in model.graph.node]
    assert operations[:2] == ["Sub", "Div"] and "Conv" in operations  # normalisation first
    assert "BatchNormalization" not in operations
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18] and model.ir_version == 8
    (images,) = model.graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dimensions = images.type.tensor_type.shape.dim
    assert dimensions[0].dim_param and [entry.dim_value for entry in dimensions[1:]] == [3, 8, 8]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert b"site-packages" not in (run / "model.onnx").read_bytes()  # no paths of the machine that wrote it


@pytest.mark.parametrize("opset", [14, pytest.param(17, marks=pytest.mark.slow), 22, *SLOW_OPSETS])
@pytest.mark.parametrize("kind", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_other_versions_of_the_operators(tmp_path, opset, kind):
    """The file says its version, keeps its names and its open batch, and gives what the network gives."""
    model = write_run(tmp_path)
    quantize = None if kind == "float32" else kind
    config = ExportConfig(model_path=str(tmp_path), opset=opset, quantize=quantize, check_images=20)
    report = export_model(config)
    written = onnx.load(report.file)
    onnx.checker.check_model(written, full_check=True)
    assert [entry.version for entry in written.opset_import if entry.domain == ""] == [opset] and report.opset == opset
    assert written.ir_version == OLDEST_FORMS[opset]
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    pixels = random_pixels(3)
    found, tolerance = session_logits(Path(report.file), pixels.float() / 255), 1e-5 if kind == "float32" else 1.0
    torch.testing.assert_close(found, plain_logits(model, pixels), rtol=tolerance, atol=tolerance)


def test_metadata_say_what_a_user_must_know(exported):
    run, model, _ = exported
    properties = {entry.key: entry.value for entry in onnx.load(run / "model.onnx").metadata_props}
    assert json.loads(properties["class_names"]) == list(DIGITS)
    assert json.loads(properties["image_size"]) == 8
    assert json.loads(properties["preprocessing"]) == {
        "image_size": 8,
        "short_side": 8,
        "mean": [0.2, 0.3, 0.5],
        "std": [0.4, 0.3, 0.2],
    }
    assert properties["architecture"] == model.architecture.to_text()
    assert properties["tfnas_version"] == tfnas.__version__


def test_the_report(exported):
    run, _, report = exported
    (check,) = report.checks
    assert check.images == "test images of the run" and check.count == 359
    assert {1, 32} <= set(check.batch_sizes)
    assert check.max_abs_difference <= 1e-4 and check.same_top1 == 1
    assert report.file_bytes == (run / "model.onnx").stat().st_size
    assert {(found.batch_size, found.runtime.partition(" ")[0]) for found in report.latency} == {
        (1, "onnxruntime"),
        (1, "torch"),
        (32, "onnxruntime"),
        (32, "torch"),
    }
    assert all(found.threads == 1 and found.device and found.runs >= 10 for found in report.latency)
    saved = json.loads((run / "model.onnx.json").read_text())
    assert saved["format"] == "tfnas-export" and saved["export"]["file_bytes"] == report.file_bytes
    assert saved["export"]["latency"][0]["median_ms"] == report.latency[0].median_ms
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "model.onnx", "model.onnx.json", "model.pt"]


def test_read_back(exported):
    run, model, _ = exported
    read = OnnxModel.load(run / "model.onnx", threads=1)
    assert (read.class_names, read.preprocessing) == (model.class_names, model.preprocessing)
    assert read.architecture == model.architecture.to_text() and read.batch_size is None
    pixels = random_pixels(5)
    torch.testing.assert_close(read.logits(pixels.float() / 255), plain_logits(model, pixels), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="takes images N x 3 x 8 x 8, got 2 x 3 x 9 x 8"):
        read.logits(torch.zeros(2, 3, 9, 8))


@pytest.mark.slow
def test_half_precision_with_another_size_and_a_fixed_batch(tmp_path):
    """The fully convolutional network takes any size; a fixed batch is filled up by the reader."""
    model = write_run(tmp_path)
    report = export_model(
        ExportConfig(model_path=str(tmp_path / "model.pt"), dtype="float16", image_size=12, batch="3", check_images=20)
    )
    assert report.file == str(tmp_path / "model.float16.onnx") and report.image_size == 12
    assert report.checks[0].count == 20 and report.checks[0].batch_sizes == (3,)
    assert {found.batch_size for found in report.latency} == {3}
    graph = onnx.load(tmp_path / "model.float16.onnx").graph
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}
    assert {entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    read = OnnxModel.load(tmp_path / "model.float16.onnx")
    assert read.batch_size == 3 and read.preprocessing.image_size == 12
    pixels = random_pixels(7, size=12)
    expected = plain_logits(model, pixels)
    found = read.logits(pixels.float() / 255)
    assert found.shape == expected.shape
    # 11 significant bits, a few rounding steps a layer
    assert float((found - expected).abs().max()) < 0.02 * float(expected.abs().max())
    assert not torch.equal(found, expected)


@pytest.mark.slow
def test_activations_beyond_half_precision_are_refused(tmp_path):
    made_model(scale=1e6).save(tmp_path / "model.pt")
    with pytest.raises(RunFailed, match="not finite in float16"):
        export_model(ExportConfig(model_path=str(tmp_path), dtype="float16"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_how_close_a_graph_must_be():
    """1e-4 of the largest logit, which is 50 here; the share of equal classes counted by hand."""
    network = torch.tensor([[50.0, 1.0], [3.0, 2.0], [0.0, 1.0]])
    near = network + torch.tensor([[0.004, 0.0], [0.0, 0.0], [0.0, -0.002]])
    far = network + torch.tensor([[0.0, 0.0], [-2.0, 0.0], [0.0, 0.006]])

    def check_of(kind, logits):
        return check_outputs(GraphOutputs(network, {"graph": logits}, (3,)), "graph", kind, "made-up images")

    assert check_of("float32", near).max_abs_difference == pytest.approx(0.004, rel=1e-3)
    assert check_of("float32", near).same_top1 == 1 and check_of("int8", far).same_top1 == pytest.approx(2 / 3)
    assert check_of("int8", far).max_abs_difference == 2 and check_of("int8", far).largest_logit == 50
    with pytest.raises(RunFailed, match=r"differ from PyTorch's by up to 2, more than 0\.005, on 3 made-up images"):
        check_of("float32", far)
    with pytest.raises(RunFailed, match="not finite in int8"):
        check_of("int8", far / torch.tensor([0.0, 1.0]))


@pytest.mark.slow
def test_a_wrong_graph_is_refused_and_the_former_file_stays(tmp_path, monkeypatch):
    """A fault is planted in the folding: the check sees it, for it holds the file against the unfolded network."""
    from tfnas.export import exported_files as deployed

    true_fold = deployed.without_batch_norm

    def spoiled(network):
        folded = true_fold(network)
        with torch.no_grad():
            folded.feature_mix_layer.conv.bias.add_(0.01)
        return folded

    write_run(tmp_path)
    (tmp_path / "model.onnx").write_text("the former file")
    monkeypatch.setattr(deployed, "without_batch_norm", spoiled)
    with pytest.raises(RunFailed, match="logits differ from PyTorch's by up to"):
        export_model(ExportConfig(model_path=str(tmp_path)))
    assert (tmp_path / "model.onnx").read_text() == "the former file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.onnx", "model.pt"]


def foreign(tmp_path, **properties):
    """An ONNX file of someone else: one Identity."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, properties)
    path = tmp_path / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_other_files_are_refused(tmp_path, exported):
    with pytest.raises(InputError, match="has no class_names in its metadata: it was not written by tfnas export"):
        OnnxModel.load(foreign(tmp_path))
    good = json.dumps({"image_size": 8, "short_side": 8, "mean": [0, 0, 0], "std": [1, 1, 1]})
    names = json.dumps(["a", "b"])
    with pytest.raises(InputError, match="damaged metadata"):
        OnnxModel.load(foreign(tmp_path, class_names="[1", preprocessing=good, architecture=""))
    with pytest.raises(InputError, match="class_names is not a list of texts"):
        OnnxModel.load(foreign(tmp_path, class_names="[1]", preprocessing=good, architecture=""))
    with pytest.raises(InputError, match="does not give logits of 2 classes"):
        OnnxModel.load(foreign(tmp_path, class_names=names, preprocessing=good, architecture=""))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        OnnxModel.load(tmp_path / "missing.onnx")
    data = (exported[0] / "model.onnx").read_bytes()
    for damaged in (b"\xff" * 40, data[: len(data) // 2]):
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            OnnxModel.load(tmp_path / "damaged.onnx")


def test_single_flipped_bits_change_no_answer(tmp_path, exported):
    """A file that has been damaged is refused, or gives what it gave: ONNX has no checksum, so the file brings one."""
    run, _, _ = exported
    images = random_pixels(2).float() / 255
    whole = np.frombuffer((run / "model.onnx").read_bytes(), np.uint8)
    expected, refused = session_logits(run / "model.onnx", images), 0
    places = np.random.default_rng(1).choice(8 * len(whole), 300, replace=False)
    for place in [*places, *range(8 * (len(whole) - 90), 8 * len(whole), 5)]:  # anywhere, and where the checksum is
        damaged = whole.copy()
        damaged[place // 8] ^= 1 << (place % 8)
        (tmp_path / "damaged.onnx").write_bytes(damaged.tobytes())
        try:
            found = OnnxModel.load(tmp_path / "damaged.onnx", threads=1).logits(images)
        except InputError:
            refused += 1
            continue
        assert torch.equal(found, expected), place
    assert refused > 300


def test_files_without_a_checksum_are_read(tmp_path, exported):
    """Those of earlier versions."""
    model = onnx.load(exported[0] / "model.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == "sha256")
    model.metadata_props.remove(entry)
    onnx.save_model(model, tmp_path / "old.onnx")
    assert OnnxModel.load(tmp_path / "old.onnx").class_names == DIGITS
    model.metadata_props.add(key="sha256", value="")
    onnx.save_model(model, tmp_path / "empty.onnx")
    with pytest.raises(InputError, match="does not match its checksum: it is damaged or was modified"):
        OnnxModel.load(tmp_path / "empty.onnx")


def test_weights_in_other_files_are_refused(tmp_path, exported):
    model = onnx.load(exported[0] / "model.onnx")
    onnx.save_model(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(InputError, match="stores weights in external files"):
        OnnxModel.load(tmp_path / "split.onnx")


@pytest.mark.parametrize("place", ["node", "subgraph", "function"])
def test_weights_in_other_files_are_refused_wherever_they_stand(tmp_path, place):
    """A constant that names a file: of a node, of a branch of an If, of a function."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    (tmp_path / "w.bin").write_bytes(bytes(4))
    tensor = onnx.TensorProto(data_type=float32, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    images, logits = (helper.make_tensor_value_info(name, float32, ["n"]) for name in ("images", "logits"))
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("w", float32, [1])])
    nodes = {
        "node": [constant],
        "subgraph": [helper.make_node("If", ["images"], ["w"], then_branch=branch, else_branch=branch)],
        "function": [helper.make_node("Own", [], ["w"], domain="own")],
    }[place]
    graph = helper.make_graph([*nodes, helper.make_node("Add", ["images", "w"], ["logits"])], "g", [images], [logits])
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "Own", [], ["w"], [constant], versions[:1])] if place == "function" else []
    (tmp_path / "other.onnx").write_bytes(
        helper.make_model(graph, functions=functions, opset_imports=versions).SerializeToString()
    )
    with pytest.raises(InputError, match="stores weights in external files"):
        OnnxModel.load(tmp_path / "other.onnx")


@pytest.mark.slow
def test_the_same_model_gives_the_same_bytes(exported):
    from tfnas.export.exported_files import onnx_bytes, trace

    _, model, _ = exported
    first, second = (onnx_bytes(trace(model, model.preprocessing, "float32", None), {"a": "b"}) for _ in range(2))
    assert first == second
    assert np.frombuffer(first, np.uint8).size > 1000
