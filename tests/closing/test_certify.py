"""Certifying files: what is timed, what is written, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import tiny_space

from tfnas.cli import latency as command
from tfnas.closing import CertifyConfig, certify_file
from tfnas.data.preprocessing import Preprocessing
from tfnas.errors import InputError
from tfnas.export import ExportConfig, export_model
from tfnas.latency.measuring.bench import Visit
from tfnas.latency.measuring.workloads import random_architectures
from tfnas.model_file import TrainedModel
from tfnas.nn import Network


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
    export_model(ExportConfig(**small, out=str(folder / "three.onnx"), batch="3"))
    return folder, architecture


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
            yield Visit(tuple(own), ())

    def clock(self):
        return self.seconds


def certified(path, tmp_path, visits, **changes):
    config = CertifyConfig(file=(str(path),), **{"out": str(tmp_path / "certificate.json"), **changes})
    return certify_file(config, visits=visits, clock=visits.clock)


@pytest.mark.parametrize(
    ("target_lat", "verdict"), [(10.02, "inside"), (10.5, "outside"), (9.0, "outside"), (None, None)]
)
def test_the_verdict_and_what_is_written(files, tmp_path, target_lat, verdict):
    folder, architecture = files
    report = certified(folder / "any.onnx", tmp_path, MadeVisits(0.02), target_lat=target_lat, batch=5)
    assert report.verdict == verdict and report.found.half_width <= 0.01 / 3
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


def test_noise_that_forbids_a_statement_is_told(files, tmp_path):
    folder, _ = files
    noisy = {"noise": 0.1, "memory": 300}
    report = certified(folder / "any.onnx", tmp_path, MadeVisits(**noisy), target_lat=10.0, time_budget="20s")
    assert report.verdict == "undecided" and report.found.half_width > 0.01
    assert 20 <= report.found.seconds < 26
    text = "\n".join(report.lines())
    assert (
        "not decided whether within 1 % of 10 ms: noise is larger than that" in text and "supports an epsilon" in text
    )
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
        ("", "give one FILE to certify, got 0"),
        ("any.onnx three.onnx", "give one FILE to certify, got 2"),
        ("nowhere.onnx", "nowhere.onnx: there is no such file"),
        ("empty", "holds no model.pt: it is no finished training run"),
        ("code.pt2", "loading a .pt2 file can run code that it brings along, so none is loaded"),
        ("text.onnx", "text.onnx is no ONNX file, or damaged"),
        ("text.pt", "text.pt"),
        ("--batch 2 three.onnx", "--batch is 2, but three.onnx takes 3 images per call, no others"),
        ("--device cuda any.onnx", "--device is cuda, but ONNX files are timed on the CPU"),
        ("--device tpu model.pt", "device must be auto, cpu, cuda or cuda:N"),
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
