"""8-bit files: what they are made of, and their figures against figures computed here."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
import torch
from made_models import digit_pixels, fitted_model, made_model, plain_logits, write_run
from onnx.reference import ReferenceEvaluator
from PIL import Image
from rich.console import Console

from tfnas import ExportConfig, InputError, OnnxModel, export_model
from tfnas.cli.main import main
from tfnas.export.export_report import Accuracy, Latency, OutputCheck, shipping_warnings
from tfnas.report.model_report import print_export
from tfnas.searching.refitting.certify import certify_file
from tfnas.searching.refitting.refit_config import CertifyConfig
from tfnas.utils import devices as processor


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run's folder, its model, and the report of its export in 8 bits."""
    run = tmp_path_factory.mktemp("run")
    model = write_run(run, fitted_model())
    return run, model, export_model(ExportConfig(model_path=str(run), quantize="int8", calibration_images=100))


def describe_without_vnni(folder, patch):
    """This machine as Linux would describe one of AMD's with AVX2 and no VNNI."""
    (folder / "cpuinfo").write_text("model name\t: AMD EPYC 7763\nflags\t\t: fpu avx f16c fma avx2\n")
    patch.setattr(processor, "_CPUINFO", folder / "cpuinfo")
    patch.setattr(processor.platform, "machine", lambda: "x86_64")


@pytest.fixture
def without_vnni(tmp_path, monkeypatch):
    describe_without_vnni(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def full_range(exported, tmp_path_factory):
    """The file of full range beside that of `exported`, and the report of its export on a machine without VNNI."""
    run, _, _ = exported
    settings = {"quantize": "int8_vnni", "check_images": 40, "measure_batch": 1}
    with pytest.MonkeyPatch.context() as patch:
        describe_without_vnni(tmp_path_factory.mktemp("machine"), patch)
        report = export_model(ExportConfig(model_path=str(run), **settings))
    return run / "model.int8_vnni.onnx", report


def test_the_graph_is_of_8_bits(exported):
    run, _, report = exported
    graph = onnx.load(run / "model.int8.onnx").graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions and not any(node.op_type == "BatchNormalization" for node in graph.node)
    for node in convolutions:
        weights = producers[node.input[1]]
        assert weights.op_type == "DequantizeLinear"
        assert stored[weights.input[0]].data_type == onnx.TensorProto.INT8
        channels = stored[weights.input[0]].dims[0]
        assert list(stored[weights.input[1]].dims) == [channels]  # a scale per channel
        assert producers[node.input[0]].op_type == "DequantizeLinear"
    assert report.calibration.count == 100 and report.calibration.images == "training images of the run"


def test_accuracy_and_drop(exported):
    """Float32 from PyTorch and 8 bits from the file, on the test part of the digits and its labels."""
    run, model, report = exported
    pixels, labels = digit_pixels()
    float32 = plain_logits(model, pixels)
    int8 = OnnxModel.load(run / "model.int8.onnx").logits(pixels.float() / 255)
    top1 = [100 * (logits.argmax(1) == labels).sum().item() / len(labels) for logits in (float32, int8)]
    assert report.accuracy.count == len(labels) == 359
    assert report.accuracy.float32_top1 == pytest.approx(top1[0])
    assert report.accuracy.file_top1 == pytest.approx(top1[1])
    assert report.accuracy.drop_points == pytest.approx(top1[0] - top1[1])
    before, after, reference = report.checks
    assert (before.kind, after.kind, reference.kind) == ("float32", "int8", "int8")
    assert (before.instructions, reference.instructions) == (None, None) and after.instructions
    assert before.max_abs_difference < 1e-4 < after.max_abs_difference
    assert after.max_abs_difference == pytest.approx((int8 - float32).abs().max().item(), rel=1e-3)
    assert after.same_top1 == pytest.approx((int8.argmax(1) == float32.argmax(1)).double().mean().item())


def test_it_is_right_here_and_by_the_reference(exported):
    """Within a point of float32's top-1, and 97 % of the images keep their class: on whatever processor this is."""
    _, _, report = exported
    assert report.accuracy.float32_top1 > 90
    _, here, reference = report.checks
    for check, top1 in ((here, report.accuracy.file_top1), (reference, report.accuracy.reference_top1)):
        assert check.same_top1 >= 0.97 and abs(top1 - report.accuracy.float32_top1) <= 1
    assert not any("8 bits are too few" in text or "computes it incorrectly" in text for text in report.warnings)


def test_the_reference_is_what_the_file_means(exported):
    """ONNX's own evaluator, in numpy, node by node: no onnxruntime, no instructions for bytes."""
    run, _, report = exported
    pixels = digit_pixels()[0][:24].float() / 255
    model = onnx.load(run / "model.int8.onnx")
    model.opset_import[0].version = 19  # from which on it knows quantised numbers; the other nodes are the same there
    (meant,) = ReferenceEvaluator(model).run(None, {"images": pixels.numpy()})
    data = (run / "model.int8.onnx").read_bytes()
    found = OnnxModel.from_bytes(data, "the file", threads=1, optimized=False).logits(pixels)
    step = 2 * report.checks[0].largest_logit / 255  # of the last quantised numbers; a tie may round either way
    torch.testing.assert_close(found, torch.from_numpy(meant), rtol=0, atol=1.5 * step)
    assert (found.argmax(1) == torch.from_numpy(meant).argmax(1)).double().mean() > 0.95


def most_of_two_products(path):
    """The largest sum of two products of a file's 8-bit weights of one output with activations of 255."""
    most = 0
    for tensor in onnx.load(path).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
            sizes = np.abs(onnx.numpy_helper.to_array(tensor).astype(int))
            rows = np.sort(sizes.reshape(len(sizes), -1) if len(tensor.dims) == 4 else sizes.T, axis=1)
            most = max(most, int(255 * rows[:, -2:].sum(1).max()))
    return most


def test_no_two_products_overflow_16_bits(exported, full_range):
    """What x86 processors without VNNI add in 16 bits, whichever weights they pair; with 8 bits they would overflow."""
    (run, _, _), (file, report) = exported, full_range
    assert 0 < most_of_two_products(run / "model.int8.onnx") < 2**15
    assert report.kind == "int8_vnni" and report.file == str(file)
    assert most_of_two_products(file) >= 2**15
    assert report.checks[2].same_top1 >= 0.97
    properties = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert properties["kind"] == "int8_vnni" and properties["needs"] == "x86 with VNNI, or Arm"
    assert properties["weights"] == "-127 to 127"


def test_what_is_printed(exported):
    _, _, report = exported
    text = io.StringIO()
    print_export(Console(file=text, width=80, force_terminal=True, no_color=True), report)
    lines = text.getvalue().splitlines()
    assert max(len(line) for line in lines if report.file not in line) <= 80
    assert "int8      calibrated on 100 training images of the run" in lines
    found = report.accuracy
    assert f"accuracy  top-1 {found.file_top1:.2f} % against {found.float32_top1:.2f} % in" in text.getvalue()
    assert sum(" ms +- " in line and "int8, batch " in line for line in lines) == 2


def test_sizes_and_latency_of_both(exported):
    run, _, report = exported
    assert report.file_bytes == (run / "model.int8.onnx").stat().st_size
    assert report.float32_onnx_bytes > 0
    assert {(found.kind, found.runtime.partition(" ")[0], found.batch_size) for found in report.latency} == {
        (kind, runtime, size)
        for kind, runtime in (("float32", "onnxruntime"), ("int8", "onnxruntime"), ("float32", "torch"))
        for size in (1, 32)
    }


@pytest.mark.slow
def test_pictures_of_your_own(tmp_path):
    """Folders named like the classes give labels; half of the pictures calibrate, the others are judged by."""
    made_model(class_names=("cat", "dog"), data="folder").save(tmp_path / "model.pt")
    generator = torch.Generator().manual_seed(1)
    for number in range(10):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2] / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (9, 11, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    report = export_model(
        ExportConfig(model_path=str(tmp_path), quantize="int8", img_root=str(tmp_path / "photos"), batch="4")
    )
    assert (report.calibration.count, report.accuracy.count) == (5, 5)
    assert report.accuracy.float32_top1 * 5 / 100 == pytest.approx(round(report.accuracy.float32_top1 * 5 / 100))
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "unlabelled.png")
    report = export_model(ExportConfig(model_path=str(tmp_path), img_root=str(tmp_path / "photos")))
    assert report.accuracy is None and report.checks[0].count == 11


def test_without_real_images_it_is_refused(tmp_path):
    made_model(class_names=("cat", "dog"), data="folder").save(tmp_path / "model.pt")
    with pytest.raises(InputError, match="int8 is calibrated on real images: give some with --img_root FOLDER"):
        export_model(ExportConfig(model_path=str(tmp_path), quantize="int8"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("command", ["predict", "test", "latency certify"])
def test_files_that_this_processor_computes_wrongly_are_warned_of(
    command, exported, full_range, tmp_path, capsys, without_vnni
):
    """Told by the weights: a file of an earlier version says nothing of them, and is the dangerous one."""
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    vnni = onnx.load(full_range[0])
    del vnni.metadata_props[[entry.key for entry in vnni.metadata_props].index("sha256")]
    del vnni.metadata_props[[entry.key for entry in vnni.metadata_props].index("needs")]
    onnx.save(vnni, tmp_path / "earlier.onnx")
    arguments = {
        "predict": ["--model_path", "FILE", str(tmp_path / "a.png")],
        "test": ["--model_path", "FILE", "--threads", "1", "--out", str(tmp_path / "out")],
        "latency certify": ["FILE", "--time_budget", "0.2s", "--out", str(tmp_path / "certificate.json")],
    }[command]
    for file, warned in (
        (exported[0] / "model.int8.onnx", False),
        (full_range[0], True),
        (tmp_path / "earlier.onnx", True),
    ):
        assert main([*command.split(), *(str(file) if word == "FILE" else word for word in arguments)]) == 0
        shown = capsys.readouterr().err
        assert shown.count("has 8-bit weights of full range, and this processor (AMD EPYC 7763) has no VNNI") == warned
        assert not warned or f"warning: {file}" in shown
        written = {"test": tmp_path / "out" / "test.json", "latency certify": tmp_path / "certificate.json"}.get(
            command
        )
        assert written is None or (json.loads(written.read_text())["warning"] is not None) == warned


def test_what_is_recorded_of_the_processor(exported, full_range, tmp_path, without_vnni):
    (run, _, _), (file, report) = exported, full_range
    assert report.instruction_sets == ("avx", "f16c", "fma", "avx2") and report.checks[1].instructions == "avx2"
    saved = json.loads(file.with_name("model.int8_vnni.onnx.json").read_text())["export"]
    assert saved["instruction_sets"] == ["avx", "f16c", "fma", "avx2"]
    config = CertifyConfig(file=(str(run / "model.int8.onnx"),), time_budget="0.2s", out=str(tmp_path / "c.json"))
    certify_file(config)
    conditions = json.loads((tmp_path / "c.json").read_text())["certificate"]["conditions"]
    assert conditions["instruction_sets"] == ["avx", "f16c", "fma", "avx2"]


def check_of(kind, same_top1, instructions=None):
    return OutputCheck(
        kind=kind,
        instructions=instructions,
        images="made-up images",
        count=1000,
        batch_sizes=(32,),
        max_abs_difference=0.1,
        largest_logit=5.0,
        same_top1=same_top1,
        tolerance=None,
    )


@pytest.mark.parametrize(
    ("kind", "here", "reference", "top1", "size", "words"),
    [
        ("int8", 0.99, 0.99, (90.0, 89.5, 89.5), 500, []),
        ("int8", 0.97, 0.97, (90.0, 89.0, 89.0), 500, []),  # the edges of what is right
        ("int8", 0.96, 0.96, (90.0, 90.5, 90.5), 500, ["8 bits are too few for this network", "96.00 % of the images"]),
        ("int8", 0.99, 0.99, (90.0, 88.9, 88.9), 500, ["8 bits are too few", "top-1 falls by 1.10 points"]),
        (
            "int8_vnni",
            0.60,
            0.99,
            (90.0, 55.0, 90.0),
            500,
            ["this processor (avx2) computes it incorrectly", "--quantize int8 "],
        ),
        ("int8", 0.60, 0.99, (90.0, 55.0, 90.0), 500, ["computes it incorrectly", "the runtime is at fault"]),
        (
            "int8",
            0.99,
            0.99,
            (90.0, 89.9, 89.9),
            1000,
            ["larger than in float32 (1000 bytes, 1000 in float32)", "0.50 of"],
        ),
        ("int8", 0.99, 0.99, (90.0, 90.1, 90.1), 1001, []),  # larger, and no less accurate
    ],
)
def test_what_is_said_before_shipping(kind, here, reference, top1, size, words):
    checks = (check_of("float32", 1.0), check_of(kind, here, "avx2"), check_of(kind, reference))
    accuracy = Accuracy(
        images="made-up images",
        count=1000,
        float32_top1=top1[0],
        float32_runtime="onnxruntime",
        file_top1=top1[1],
        drop_points=top1[0] - top1[1],
        reference_top1=top1[2],
    )
    numbers = {"runtime": "onnxruntime", "batch_size": 1, "threads": 1, "device": "", "spread_ms": 0.0, "runs": 10}
    latency = [Latency(kind="float32", median_ms=2.0, **numbers), Latency(kind=kind, median_ms=1.0, **numbers)]
    assert "calibrated on 31 images only" in shipping_warnings(checks, accuracy, latency, size, 1000, 31)[0]
    warnings = shipping_warnings(checks, accuracy, latency, size, 1000, 32)
    assert len(warnings) == bool(words)
    assert all(word in warnings[0] for word in words)
