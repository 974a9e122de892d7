"""Certifying files: what is timed, what is written, what is refused."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from tiny import tiny_contents, tiny_space

from tfnas.bench.benchmark_cases import random_architectures
from tfnas.bench.timing import TimingSample
from tfnas.cli import latency as command
from tfnas.core.errors import InputError, RunFailed, TfnasError
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_config import ExportConfig
from tfnas.export.exporting import export_model
from tfnas.export.onnx_model import number_type
from tfnas.latency.cost_table import LatencyTable
from tfnas.nn.network import Network
from tfnas.runs.model_file import TrainedModel
from tfnas.searching.refitting.certify import certify_file
from tfnas.searching.refitting.refit_config import CertifyConfig


def without_checksum(model):
    """A model that a test may change, as files of earlier versions are."""
    (entry,) = (entry for entry in model.metadata_props if entry.key == "sha256")
    model.metadata_props.remove(entry)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A run directory with a model.pt, an ONNX file for any batch, and one for 3 images."""
    folder = tmp_path_factory.mktemp("run")
    (architecture,) = random_architectures(tiny_space(), 1, 10, 3)
    torch.manual_seed(0)
    network = Network(architecture).eval()
    preprocessing = Preprocessing(8, 8, (0.2, 0.3, 0.5), (0.4, 0.3, 0.2))
    names = tuple("0123456789")
    TrainedModel(architecture, network.state_dict(), names, preprocessing, "digits").save(folder / "model.pt")
    small = {"model_path": str(folder / "model.pt"), "check_images": 8, "measure_batch": 2}
    export_model(ExportConfig(**small, out=str(folder / "any.onnx")))
    three = without_checksum(onnx.load(folder / "any.onnx"))
    for value in (*three.graph.input, *three.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(three, folder / "three.onnx")
    return folder, architecture


@pytest.fixture(scope="module")
def small_numbers(files, tmp_path_factory):
    """Beside the files above, the same network in float16 and in int8."""
    folder, _ = files
    small = {"model_path": str(folder / "model.pt"), "check_images": 8, "measure_batch": 2}
    export_model(ExportConfig(**small, out=str(folder / "half.onnx"), dtype="float16"))
    pictures = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    export_model(ExportConfig(**small, out=str(folder / "8.onnx"), quantize="int8", img_root=str(pictures)))


class MadeVisits:
    """Timed calls of 10 ms with noise, without a clock; calls the function once in a visit all the same."""

    def __init__(self, noise, memory=1, seed=0):
        self.random, self.noise, self.keep = np.random.default_rng(seed), noise, np.exp(-1 / memory)
        self.level, self.seconds, self.calls = 0.0, 0.0, 0

    def __call__(self, call):
        while True:
            self.outcome = call()
            self.calls += 1
            own = []
            for _ in range(20):
                self.level = self.keep * self.level + np.sqrt(1 - self.keep**2) * self.random.standard_normal()
                own.append(10 * np.exp(self.noise * self.level))
            self.seconds += sum(own) / 1e3
            yield TimingSample(tuple(own), ())

    def clock(self):
        return self.seconds


def certified(path, tmp_path, visits, **changes):
    config = CertifyConfig(file=(str(path),), **{"out": str(tmp_path / "certificate.json"), **changes})
    return certify_file(config, samples=visits, clock=visits.clock)


@pytest.mark.parametrize(
    ("target_lat", "verdict"), [(10.02, "inside"), (10.5, "outside"), (9.0, "outside"), (None, None)]
)
def test_the_verdict_and_what_is_written(files, tmp_path, target_lat, verdict):
    folder, architecture = files
    report = certified(folder / "any.onnx", tmp_path, MadeVisits(0.02), target_lat=target_lat, batch=5)
    assert report.verdict == verdict and report.found.half_width < 0.005 and 29 <= report.found.seconds <= 50
    document = json.loads((tmp_path / "certificate.json").read_text())
    assert document == report.to_json()
    assert (document["format"], document["version"]) == ("tfnas-certificate", 1)
    assert (document["architecture"], document["target_ms"]) == (architecture.to_text(), target_lat)
    conditions = document["certificate"]["conditions"]
    assert (conditions["runtime"], conditions["batch_size"], conditions["threads"]) == ("onnxruntime", 5, 1)
    assert {"onnxruntime", "tfnas", "python"} == set(conditions["versions"])
    assert document["certificate"]["median_ms"] == pytest.approx(10.0, rel=0.005)
    text = "\n".join(report.lines())
    assert "confidence" in text and ("within 1 % of" in text) == (target_lat is not None)


def test_what_the_search_was_for_is_told(files, tmp_path):
    """By way of the report beside the file, the run and the table; not of another network, nor of a changed table."""
    folder, architecture = files
    run, table_path = tmp_path / "run", tmp_path / "table.json"
    run.mkdir()
    (run / "model.pt").write_bytes((folder / "model.pt").read_bytes())
    file = tmp_path / "ship.onnx"
    file.write_bytes((folder / "any.onnx").read_bytes())
    (tmp_path / "ship.onnx.json").write_text(json.dumps({"export": {"model": str(run)}}))
    LatencyTable(tiny_contents(tiny_space(), random.Random(3))).save(table_path)
    summary = {"target_ms": 12.5, "lookup_path": str(table_path), "architecture": architecture.to_text()}
    summary["table_fingerprint"] = LatencyTable.load(table_path).fingerprint

    def note(path, said, **changes):
        (run / "summary.json").write_text(json.dumps(said))
        lines = certified(path, tmp_path, MadeVisits(0.005), **changes).lines()
        return [line for line in lines if line.startswith("note")]

    words = "note      the target of its search was 12.5 ms for a batch of 32 on 1 thread in torch: "
    for path in (file, run):
        assert note(path, summary) == [f"{words}--batch 32 --target_lat 12.5 tests against it"]
    assert note(file, summary, batch=32) == [f"{words}--target_lat 12.5"]
    assert note(file, summary, batch=32, target_lat=12.5) == []
    for changes in ({"architecture": "x"}, {"target_ms": None}, {"table_fingerprint": "x"}, {"lookup_path": "none"}):
        assert note(file, {**summary, **changes}) == []


def test_noise_that_forbids_a_statement_is_told(files, tmp_path):
    folder, _ = files
    noisy = {"noise": 0.1, "memory": 300}
    report = certified(folder / "any.onnx", tmp_path, MadeVisits(**noisy), target_lat=10.0, time_budget="20s")
    assert report.verdict == "undecided" and report.found.half_width > 0.01
    assert 10 <= report.found.seconds <= 20
    text = "\n".join(report.lines())
    assert "undecided whether within 1 % of 10 ms: the noise is larger" in text and "supports an epsilon" in text
    alone = certified(folder / "any.onnx", tmp_path, MadeVisits(**noisy), time_budget="20s")
    assert "warning: noise is larger than 1 %" in "\n".join(alone.lines())


def test_what_is_called_is_the_file_itself(files, tmp_path):
    folder, _ = files
    onnx, three, trained = (MadeVisits(0.0) for _ in range(3))
    certified(folder / "any.onnx", tmp_path, onnx, batch=4)
    (logits,) = onnx.outcome
    certified(folder / "three.onnx", tmp_path, three, batch=3)
    report = certified(folder, tmp_path, trained, batch=4)
    assert logits.shape == (4, 10) and three.outcome[0].shape == (3, 10) and trained.outcome.shape == (4, 10)
    model = TrainedModel.load(folder)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model.network()(images)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
        normalised = model.network()((images - mean) / std)
    torch.testing.assert_close(trained.outcome, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(logits), normalised, rtol=1e-3, atol=1e-4)
    assert report.file == str(folder / "model.pt") and report.under.runtime == "torch"


def test_the_certificate_says_which_file_and_which_numbers(files, tmp_path):
    says_which_file_and_which_numbers(files[0] / "any.onnx", "float32", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [("half.onnx", "float16"), ("8.onnx", "int8")])
def test_the_certificate_says_which_small_numbers(files, small_numbers, tmp_path, name, dtype):
    says_which_file_and_which_numbers(files[0] / name, dtype, tmp_path)


def says_which_file_and_which_numbers(file, dtype, tmp_path):
    report = certified(file, tmp_path, MadeVisits(0.0), batch=2)
    document = json.loads((tmp_path / "certificate.json").read_text())
    by_coreutils = subprocess.run(["sha256sum", str(file)], capture_output=True, check=True, text=True).stdout
    assert document["sha256"] == by_coreutils.split()[0] and document["bytes"] == file.stat().st_size
    assert document["certificate"]["conditions"]["dtype"] == dtype
    text = "\n".join(report.lines())
    assert document["sha256"] in text and f", {dtype}, " in text


def test_a_trained_network_has_the_hash_of_its_file(files, tmp_path):
    report = certified(files[0], tmp_path, MadeVisits(0.0))
    assert report.sha256 == hashlib.sha256((files[0] / "model.pt").read_bytes()).hexdigest()
    assert report.under.dtype == "float32"


def graph_of(nodes, weights):
    made = [
        helper.make_tensor(f"w{place}", kind, [count], np.zeros(count, np.uint8).tobytes() * width, raw=True)
        for place, (kind, count, width) in enumerate(weights)
    ]
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"]) for kind in nodes], "g", [], [], made)
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("nodes", "weights", "dtype"),
    [
        (["Conv"], [(TensorProto.FLOAT, 10, 4)], "float32"),
        (["Conv", "Cast"], [(TensorProto.FLOAT, 6, 4), (TensorProto.FLOAT16, 100, 2)], "float16"),
        (["Conv"], [(TensorProto.FLOAT, 60, 4), (TensorProto.FLOAT16, 10, 2)], "float32"),
        (["QuantizeLinear", "Conv"], [(TensorProto.INT8, 100, 1), (TensorProto.FLOAT, 9, 4)], "int8"),
        (["ConvInteger"], [(TensorProto.UINT8, 100, 1), (TensorProto.FLOAT, 9, 4)], "int8"),
        (["DequantizeLinear", "Conv"], [(TensorProto.INT8, 100, 1), (TensorProto.FLOAT16, 9, 2)], "float16"),
        (["QuantizeLinear", "Conv"], [(TensorProto.INT8, 10, 1), (TensorProto.FLOAT, 90, 4)], "float32"),
        (["Relu"], [], "float32"),
        (["Gemm"], [(TensorProto.INT64, 1000, 8), (TensorProto.DOUBLE, 3, 8)], "float64"),
    ],
)
def test_number_types(nodes, weights, dtype):
    assert number_type(graph_of(nodes, weights)) == dtype


def edited(data, changes):
    model = without_checksum(onnx.load_model_from_string(data))
    for entry in model.metadata_props:
        if entry.key in changes:
            entry.value = changes[entry.key]
    return model


def test_metadata_that_does_not_fit_the_file_is_refused(files, tmp_path):
    data, file = (files[0] / "any.onnx").read_bytes(), tmp_path / "edited.onnx"
    (text,) = (
        entry.value for entry in onnx.load_model_from_string(data).metadata_props if entry.key == "preprocessing"
    )
    larger = json.dumps({**json.loads(text), "image_size": 9, "short_side": 9})
    onnx.save(edited(data, {"preprocessing": larger}), file)
    with pytest.raises(InputError, match=r"edited\.onnx takes tensor\(float\) of .* x 3 x 8 x 8, but .* 9 x 9"):
        certified(file, tmp_path, MadeVisits(0.0))
    model = edited(data, {"preprocessing": larger})
    for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = 9  # now the input says what the metadata says, and the graph cannot
    onnx.save(model, file)
    with pytest.raises(InputError, match=r"edited\.onnx cannot be run by onnxruntime|edited\.onnx does not give"):
        certified(file, tmp_path, MadeVisits(0.0))
    assert not (tmp_path / "certificate.json").exists()


@pytest.mark.parametrize("shape", [[], ["batch", 10, 1]])
def test_logits_of_another_shape_are_refused(tmp_path, files, shape):
    data, file = (files[0] / "any.onnx").read_bytes(), tmp_path / "edited.onnx"
    properties = without_checksum(onnx.load_model_from_string(data)).metadata_props
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    if shape:
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [3])
        node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, 8])
        graph = helper.make_graph([node], "g", [images], [logits], [axes])
    else:
        graph = helper.make_graph(
            [helper.make_node("ReduceMax", ["images"], ["logits"], keepdims=0)], "g", [images], [logits]
        )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model.metadata_props.extend(properties)
    onnx.save(model, file)
    with pytest.raises(InputError, match="does not give logits of 10 classes"):
        certified(file, tmp_path, MadeVisits(0.0))


@pytest.mark.parametrize("name", ["any.onnx", "."])
def test_the_command_times_for_real(files, capsys, name):
    folder, _ = files
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    line = f"--time_budget 1s --epsilon 99% {folder / name}"
    assert command.main(["certify", *line.split()]) == 0
    told = capsys.readouterr()
    written = folder / ("any.onnx.certificate.json" if name == "any.onnx" else "model.pt.certificate.json")
    found = json.loads(written.read_text())["certificate"]
    assert found["runs"] >= 32 and 0 < found["interval_ms"][0] <= found["median_ms"] <= found["interval_ms"][1]
    assert str(written) in told.out and told.err == ""
    assert all((folder / path).read_bytes() == data for path, data in before.items() if path != written.name)
    written.unlink()


def test_how_long_it_takes_is_told_between_the_visits(files, tmp_path):
    """Seconds rise from visit to visit; those in all are known once the pilot has said so, and are then kept to."""
    folder, _ = files
    visits, told = MadeVisits(0.02), []
    config = CertifyConfig(file=(str(folder / "any.onnx"),), out=str(tmp_path / "c.json"))
    report = certify_file(config, samples=visits, clock=visits.clock, on_spent=lambda *spent: told.append(spent))
    seconds, planned = zip(*told, strict=True)
    assert list(seconds) == sorted(seconds) and len(told) >= visits.calls - 1
    pilot = planned.index(next(known for known in planned if known is not None))
    assert set(planned[:pilot]) == {None} and len(set(planned[pilot:])) == 1
    assert seconds[pilot - 1] + report.found.seconds == pytest.approx(planned[-1], rel=0.02)


@pytest.mark.parametrize("place", ["folder", "missing/c.json", "file/c.json", "x" * 300, "/dev/full", "/proc/c.json"])
def test_where_no_certificate_can_be_written_nothing_is_timed(files, tmp_path, place):
    folder, _ = files
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    visits = MadeVisits(0.02)
    with pytest.raises(TfnasError, match=r"--out is .*|cannot write "):
        certified(folder / "any.onnx", tmp_path, visits, out=str(tmp_path / place))
    assert visits.calls == 0


def test_a_figure_is_told_where_its_certificate_cannot_be_written(files, tmp_path, capsys, monkeypatch):
    """A disk that fills up while the file is timed."""
    folder, _ = files

    def full(path, _):
        raise RunFailed(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("tfnas.searching.refitting.certify.write_whole", full)
    line = f"--time_budget 1s --epsilon 99% --out {tmp_path / 'c.json'} {folder / 'any.onnx'}"
    assert command.main(["certify", *line.split()]) == 1
    told = capsys.readouterr()
    assert "measured  " in told.out and "written" not in told.out
    assert told.err.endswith("c.json: No space left on device\n") and list(tmp_path.iterdir()) == []


def test_a_target_that_is_missed_is_exit_status_3(files, tmp_path, capsys):
    folder, _ = files
    line = f"--time_budget 1s --target_lat 1e6 --out {tmp_path / 'c.json'} {folder / 'any.onnx'}"
    assert command.main(["certify", *line.split()]) == 3
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "not within 1 % of 1e+06 ms" in told.err
    assert json.loads((tmp_path / "c.json").read_text())["verdict"] == "outside"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "give one FILE to certify, or --config_path or --arch in its place, got 0"),
        ("any.onnx three.onnx", "give one FILE to certify, or --config_path or --arch in its place, got 2"),
        ("nowhere.onnx", "nowhere.onnx: there is no such file"),
        ("empty", "has no model.pt: it is not a finished training run"),
        ("code.pt2", "loading a .pt2 file can execute code, so .pt2 files are not accepted"),
        ("text.onnx", "text.onnx is not an ONNX file, or damaged"),
        ("text.pt", "text.pt"),
        ("--batch 2 three.onnx", "--batch is 2, but three.onnx accepts exactly 3 images per call"),
        ("--device cuda any.onnx", "--device is cuda, but ONNX files are timed on the CPU"),
        ("--device tpu model.pt", "device must be auto, cpu, cuda or cuda:N"),
        ("--threads 100000 any.onnx", "100000 threads need a core each, but this process may use"),
        ("--batch 0 any.onnx", "--batch must be 1 or more, got 0"),
        ("--target_lat 0 any.onnx", "--target_lat must be a positive number of milliseconds"),
        ("--epsilon 0 any.onnx", "--epsilon must be a share"),
        ("--out empty any.onnx", "--out is empty, a folder; name a file in it"),
        ("--out no/where any.onnx", "there is no folder no; make it first"),
        ("--out any.onnx any.onnx", "--out is any.onnx, the file that is to be certified"),
        ("--targt_lat 3 any.onnx", "did you mean --target_lat?"),
    ],
)
def test_bad_input_is_one_message(files, tmp_path, monkeypatch, capsys, line, message):
    for name in ("any.onnx", "three.onnx", "model.pt"):
        (tmp_path / name).write_bytes((files[0] / name).read_bytes())
    (tmp_path / "empty").mkdir()
    for name in ("text.onnx", "text.pt", "code.pt2"):
        (tmp_path / name).write_text("no such thing")
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert command.main(["certify", *line.split()]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told and told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_copy_is_refused_wherever_it_is_cut(files, tmp_path):
    data = (files[0] / "any.onnx").read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut.onnx").write_bytes(data[: int(share * len(data))])
        with pytest.raises(InputError, match=r"cut\.onnx"):
            certified(tmp_path / "cut.onnx", tmp_path, MadeVisits(0.0))


@pytest.mark.parametrize("name", ["close", "certify"])
def test_help_is_fast_and_fits_a_terminal(name):
    check = (
        "import sys, tfnas.cli.main as m\n"
        f"try: m.main(['latency', '{name}', '--help'])\n"
        "except SystemExit: sys.exit(bool({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    environment = {"COLUMNS": "80", "PATH": "/usr/bin"}
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True, text=True, env=environment)
    assert "--epsilon" in found.stdout and max(map(len, found.stdout.splitlines())) <= 80


def test_a_file_that_is_no_certificate_is_not_replaced(files, tmp_path):
    """Weights, settings, the report of an export; a certificate of before is."""
    shutil.copy(files[0] / "any.onnx", tmp_path / "net.onnx")
    for name, text in (("model.pt", "weights"), ("config.yaml", "seed: 2\n"), ("net.onnx.json", '{"format": "other"}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="which is not a certificate and would be overwritten"):
            CertifyConfig(file=(str(tmp_path / "net.onnx"),), out=str(tmp_path / name)).target(tmp_path / "net.onnx")
        assert (tmp_path / name).read_text() == text
    for text in ("", '{"format": "tfnas-certificate"}'):
        (tmp_path / "c.json").write_text(text)
        config = CertifyConfig(file=(str(tmp_path / "net.onnx"),), out=str(tmp_path / "c.json"))
        assert config.target(tmp_path / "net.onnx") == tmp_path / "c.json"
