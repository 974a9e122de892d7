"""`test.py`: its numbers against numpy, its files, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_networks import digits_architecture
from PIL import Image

from tests.evaluation.made_models import (
    NAMES,
    PREPROCESSING,
    authors_files,
    logits_by_hand,
    named_model,
    seven_classes,
    varied_network,
    write_list,
    write_pictures,
)
from tfnas import ExportConfig, export_model
from tfnas.cli.test import main
from tfnas.core.errors import RunFailed
from tfnas.data.data_config import DataConfig, RetrainDataConfig
from tfnas.data.opened_data import open_data
from tfnas.data.preprocessing import Preprocessing
from tfnas.evaluation import evaluating, evaluation_report
from tfnas.evaluation.evaluating import evaluate
from tfnas.evaluation.evaluation_config import EvaluationConfig
from tfnas.evaluation.evaluation_report import confusion_plot

QUIET = ("--workers", "0", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In a folder of its own; the picture, which takes most of the time, is not drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation_report, "confusion_plot", lambda report: b"")


def results_of(*arguments, folder="out"):
    """The document of a test that succeeds."""
    assert main([*map(str, arguments), *QUIET, "--out", folder]) == 0
    return json.loads(Path(folder, "test.json").read_text())


def refused(capsys, *arguments):
    """The one message of a test that is refused."""
    assert main([*map(str, arguments), *QUIET]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "Traceback" not in message
    return message


def check_by_hand(found, logits, labels):
    """Metrics and confusion matrix by numpy."""
    labels, count = np.asarray(labels), logits.shape[1]
    order = np.argsort(-logits, axis=1, kind="stable")
    assert len(set(order[:, 0])) > 1  # else a constant would do
    confusion = np.zeros((count, count), dtype=int)
    for label, guess in zip(labels, order[:, 0], strict=True):
        confusion[label, guess] += 1
    assert found["confusion"] == confusion.tolist()
    assert found["num_images"] == len(labels)
    assert found["top1"] == pytest.approx(100 * np.mean(order[:, 0] == labels))
    assert found["top5"] == pytest.approx(100 * np.mean((order[:, :5] == labels[:, None]).any(1)))
    top = logits.max(1)
    loss = np.log(np.exp(logits - top[:, None]).sum(1)) + top - logits[np.arange(len(labels)), labels]
    assert found["loss"] == pytest.approx(loss.mean(), rel=1e-4)
    for row, entry in zip(confusion, found["classes"], strict=True):
        assert (entry["images"], entry["correct"]) == (row.sum(), row[entry["number"]])
    return confusion


@pytest.mark.parametrize("flag", ["--model_path", "--config_path"])  # in their README, in their example script
def test_the_authors_command(tmp_path, monkeypatch, capsys, flag):
    """Their checkpoint of seven classes with a model.config that says 1000, on a list, at 16 pixels."""
    monkeypatch.setattr(evaluation_report, "confusion_plot", confusion_plot)
    network = varied_network(seven_classes(), 5)
    config, weights = authors_files(tmp_path, network.state_dict())
    pictures = write_pictures(tmp_path / "val")
    labels = [number % 7 for number in range(len(pictures))]
    listing = write_list(tmp_path / "val.txt", tmp_path / "val", pictures, labels)
    given = ["--val_root", "val", "--val_list", listing, flag, config, "--weights", weights]
    found = results_of(*given, "--image_size", 16, "--batch_size", 8)
    logits = logits_by_hand(network, pictures, Preprocessing.of("list", 16))
    confusion = check_by_hand(found, logits, labels)
    printed = capsys.readouterr().out
    assert f"top-1       {found['top1']:.2f} %" in printed
    assert "images      35: " in printed
    assert found["num_classes"] == 7
    rows = list(csv.DictReader(Path("out/per_class.csv").read_text().splitlines()))
    assert [int(row["correct"]) for row in rows] == np.diag(confusion).tolist()
    with Image.open("out/confusion.png") as picture:
        assert picture.width > 500
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_the_network_of_a_search_with_weights_from_elsewhere(tmp_path):
    """A run directory or its architecture.json, which say the image size too."""
    network = varied_network(seven_classes(), 5)
    _, weights = authors_files(tmp_path, network.state_dict())
    (tmp_path / "searched").mkdir()
    (tmp_path / "searched" / "architecture.json").write_text(json.dumps(seven_classes().to_json()))
    pictures = write_pictures(tmp_path / "val")
    labels = [NAMES.index(path.parent.name) for path in pictures]
    logits = logits_by_hand(network, pictures, Preprocessing.of("list", 16))
    for place in ("searched", "searched/architecture.json"):
        check_by_hand(results_of("--model_path", place, "--weights", weights, "--val_root", "val"), logits, labels)


def test_a_model_on_folders_takes_classes_by_name(tmp_path):
    """Folders of some of the classes, in another order than the network's."""
    model = named_model(class_names=tuple(reversed(NAMES)))
    model.save(tmp_path / "model.pt")
    pictures = write_pictures(tmp_path / "val", ("bee", "dog", "gnu"))
    found = results_of("--model_path", "model.pt", "--val_root", "val")
    labels = [6 - NAMES.index(path.parent.name) for path in pictures]
    check_by_hand(found, logits_by_hand(model.network(), pictures, PREPROCESSING), labels)
    assert [entry["accuracy"] is None for entry in found["classes"]] == [name not in "bee dog gnu" for name in NAMES][
        ::-1
    ]


def test_an_exported_file(tmp_path, capsys):
    """It normalises by itself, and finds the images of the run of its model; results of another file stay."""
    model = named_model()
    model.save(tmp_path / "model.pt")
    pictures = write_pictures(tmp_path / "val", each=3)
    labels = [NAMES.index(path.parent.name) for path in pictures]
    export = {"img_root": "val", "check_images": 8, "measure_batch": 1}
    export_model(ExportConfig(model_path="model.pt", out="six.onnx", batch="6", **export))
    found = results_of("--model_path", "six.onnx", "--val_root", "val")
    check_by_hand(found, logits_by_hand(model.network(), pictures, PREPROCESSING), labels)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.network().parameters())
    assert "accepts only images of 16 pixels" in refused(
        capsys, "--model_path", "six.onnx", "--val_root", "val", "--image_size", "20"
    )


def test_weights_in_every_form(tmp_path):
    """The authors' checkpoint, a bare state dict, and a model.pt, which also says how pictures are normalised."""
    model = named_model()
    config, weights = authors_files(tmp_path, model.state)
    torch.save(dict(model.state), tmp_path / "bare.pt")
    model.save(tmp_path / "model.pt")
    pictures = write_pictures(tmp_path / "val")
    labels = [NAMES.index(path.parent.name) for path in pictures]
    for form in (weights, "bare.pt", "model.pt"):
        found = results_of("--config_path", config, "--weights", form, "--val_root", "val", "--image_size", 16)
        expected = PREPROCESSING if form == "model.pt" else Preprocessing.of("list", 16)
        check_by_hand(found, logits_by_hand(model.network(), pictures, expected), labels)


def test_where_results_cannot_be_written_nothing_is_tested(tmp_path, capsys, monkeypatch):
    """A folder in the place of a file is found before the work; after it, the figures are told all the same."""
    named_model().save(tmp_path / "model.pt")
    write_pictures(tmp_path / "val")
    given = ["--model_path", "model.pt", "--val_root", "val", *QUIET, "--out", "out"]
    (tmp_path / "out" / "confusion.png").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr("tfnas.evaluation.evaluating.loader", None)
        assert main(given) == 1
    refusal = "cannot write out/confusion.png: it is not a file but a folder; choose another path"
    assert capsys.readouterr().err == f"test.py: {refusal}\n"
    (tmp_path / "out" / "confusion.png").rmdir()

    def full(path, _):
        raise RunFailed(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("tfnas.evaluation.evaluation_report.write_whole", full)
    assert main(given) == 1
    told = capsys.readouterr()
    assert told.err == "test.py: cannot write out/test.json: No space left on device\n"
    assert "top-1  " in told.out and "test.json" not in told.out


def test_progress_and_loader_processes(tmp_path, capsys):
    named_model().save(tmp_path / "model.pt")
    write_pictures(tmp_path / "val")
    alone = results_of("--model_path", "model.pt", "--val_root", "val")
    assert capsys.readouterr().err == ""
    given = ["--model_path", "model.pt", "--val_root", "val", "--batch_size", "10", "--print_freq", "1e-9"]
    assert main([*given, "--threads", "1", "--device", "cpu", "--workers", "1", "--out", "out"], "tfnas test") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert [line.partition(" images, ")[0] for line in lines] == [
        f"tfnas test: {done} of 35" for done in (10, 20, 30, 35)
    ]
    found = json.loads(Path("out/test.json").read_text())
    assert found["confusion"] == alone["confusion"]
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert found["throughput"]["workers"] == 1


def test_classes_named_by_a_file_and_folders_by_order(tmp_path):
    network = varied_network(seven_classes(), 5)
    config, weights = authors_files(tmp_path, network.state_dict())
    pictures = write_pictures(tmp_path / "val")
    (tmp_path / "names.txt").write_text("\n".join(reversed(NAMES)))
    given = ["--config_path", config, "--weights", weights, "--val_root", "val", "--image_size", 16]
    logits = logits_by_hand(network, pictures, Preprocessing.of("list", 16))
    order = [NAMES.index(path.parent.name) for path in pictures]
    check_by_hand(results_of(*given), logits, order)
    check_by_hand(results_of(*given, "--class_names", "names.txt"), logits, [6 - label for label in order])


def test_numbered_folders_are_not_taken_in_the_order_of_text(tmp_path):
    """Of the folders 0 .. 11 the third in order is 10; it is class number 10 all the same."""
    network = varied_network(digits_architecture(num_classes=12), 5)
    config, weights = authors_files(tmp_path, network.state_dict())
    pictures = write_pictures(tmp_path / "val", [str(number) for number in range(12)], each=2)
    found = results_of("--config_path", config, "--weights", weights, "--val_root", "val", "--image_size", 16)
    labels = [int(path.parent.name) for path in pictures]
    check_by_hand(found, logits_by_hand(network, pictures, Preprocessing.of("list", 16)), labels)


@pytest.mark.parametrize("names", [pytest.param("0123456789", marks=pytest.mark.slow), "abcdefghij"])
def test_a_lone_model_of_digits_has_its_images(tmp_path, capsys, names):
    """Whatever its classes have been called."""
    model = named_model(
        architecture=digits_architecture(),
        state=varied_network(digits_architecture()).state_dict(),
        class_names=tuple(names),
        preprocessing=Preprocessing.of("digits", 16),
        data="digits",
    )
    model.save(tmp_path / "model.pt")
    found = results_of("--model_path", "model.pt", "--batch_size", 64)
    images = open_data(DataConfig(), image_size=16, seed=0).test.sources[0]
    pixels = images.images.double() / 255
    with torch.no_grad():
        logits = model.network().double()((pixels - 0.3053) / 0.3759).numpy()
    check_by_hand(found, logits, list(images.labels))


def test_a_run_is_tested_on_its_own_images(tmp_path, capsys):
    """What `config.yaml` of a training run names; --image_size changes the size of input."""
    pictures = write_pictures(tmp_path / "val")
    write_pictures(tmp_path / "train", seed=1)
    run = tmp_path / "run"
    model = named_model(preprocessing=Preprocessing.of("folder", 16))
    model.save(run / "model.pt")

    def set_data(**fields):
        config = RetrainDataConfig(data="folder", train_root=str(tmp_path / "train"), image_size=16, **fields)
        (run / "config.yaml").write_text(yaml.safe_dump({**dataclasses.asdict(config), "seed": 2}))

    set_data(val_root=str(tmp_path / "val"))
    labels = [NAMES.index(path.parent.name) for path in pictures]
    assert main(["--model_path", str(run), *QUIET]) == 0
    found = json.loads((run / "test" / "test.json").read_text())
    check_by_hand(found, logits_by_hand(model.network(), pictures, Preprocessing.of("folder", 16)), labels)
    found = results_of("--model_path", run / "model.pt", "--image_size", 24)
    check_by_hand(found, logits_by_hand(model.network(), pictures, Preprocessing.of("folder", 24)), labels)
    set_data(test_ratio=0.0)
    assert "has no test images" in refused(capsys, "--model_path", run)


def test_the_interval_of_top1_is_wilsons(tmp_path):
    named_model().save(tmp_path / "model.pt")
    write_pictures(tmp_path / "val")
    report = evaluate(EvaluationConfig(model_path="model.pt", val_root="val", workers=0, device="cpu"))
    with pytest.warns(DeprecationWarning, match="is now EvaluationReport.metrics"):
        assert report.scores == report.metrics
    n, p, z = 35, report.metrics.top1 / 100, 1.959963984540054
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [100 * (centre + sign * half) / (1 + z * z / n) for sign in (-1, 1)]
    assert report.top1_interval == pytest.approx(expected)


def test_the_worst_of_many_classes_are_shown(tmp_path, capsys):
    network = varied_network(digits_architecture(num_classes=31), 5)
    config, weights = authors_files(tmp_path, network.state_dict())
    write_pictures(tmp_path / "val", [f"n{number:02}" for number in range(31)], each=2)
    given = ["--config_path", config, "--weights", weights, "--val_root", "val", "--image_size", 16]
    found = results_of(*given)
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("class "))
    shown = [line.split()[0] for line in lines[start + 1 : lines.index("", start)]]
    accuracies = [entry["accuracy"] for entry in found["classes"]]
    assert len(set(shown)) == 20
    assert max(accuracies[int(name)] for name in shown) <= min(
        accuracy for number, accuracy in enumerate(accuracies) if str(number) not in shown
    )
    assert any("the 20 worst of 31; all are in out/per_class.csv" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"which network\? Give --model_path RUN, --config_path FILE .*, or --arch NAME"),
        (["--val_root", "."], r"which network\?"),
        (["--model_path", "x", "--config_path", "y", "--weights", "z"], "give --model_path or --config_path, not both"),
        (["--model_path", "model.config", "--weights", "w"], "--weights does not include images: give --val_root"),
        (["--model_path", "model.pt", "--weights", "w", "--val_root", "few"], "--model_path model.pt already says"),
        (["--model_path", "x", "--weights", "w", "--val_root", "few"], "x cannot be read"),
        (["--model_path", "w", "--weights", "w", "--val_root", "few"], "w is not a search checkpoint"),
        (["--model_path", "x" * 300, "--weights", "w", "--val_root", "few"], "cannot be read"),
        (["--config_path", "y", "--val_root", "."], "--config_path y says the network alone: give its weights too"),
        (["--weights", "y", "--val_root", "."], r"--weights y says no network; which network\?"),
        (["--config_path", "y", "--weights", "z"], "give --val_root"),
        (["--model_path", "x", "--val_list", "l"], "--val_list l needs --val_root"),
        (["--model_path", "x", "--batch_size", "0"], "batch_size is 0; it must be at least 1"),
        (["--model_path", "x", "--print_freq", "-1"], "print_freq is -1"),
        (["--model_path", "nowhere"], "nowhere cannot be read"),
        (["--model_path", "x" * 300], "cannot be read"),
        (["--config_path", "x" * 300, "--weights", "w", "--val_root", "few"], "cannot be read"),
        (["--model_path", "model.pt", "--val_root", "x" * 300], "there is no such folder"),
        (["--model_path", "model.pt", "--val_root", "few", "--out", "x" * 300], "out is x*, which cannot be accessed"),
        (["--model_path", "model.pt", "--val_root", "nowhere"], "nowhere: there is no such folder"),
        (["--model_path", "model.pt"], "has no run directory next to it"),
        (["--model_path", "model.pt", "--num_classes", "8"], "--num_classes is 8, but .* has 7 classes"),
        (["--model_path", "model.pt", "--val_root", "val"], "the network has no class yak; its classes are ant, bee"),
        (["--model_path", "model.pt", "--val_root", "val", "--val_list", "l"], "l:2: label 7 is outside 0..6"),
        (
            ["--model_path", "model.pt", "--val_root", "few", "--out", "model.pt"],
            "but model.pt is a file",
        ),
        (["--model_path", "model.pt", "--val_root", "few", "--out", "model.pt/deep/er"], r"but \S+model.pt is a file"),
        (
            ["--config_path", "model.config", "--weights", "w", "--val_root", "few"],
            "contains 2 class folders, .* has 7",
        ),
        (
            ["--config_path", "other.config", "--weights", "w", "--val_root", "val"],
            r"w contains the weights of another ",
        ),
    ],
)
def test_refused(scene, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(scene)
    found = refused(capsys, *arguments)
    assert re.search(message, found.strip()), found
    if "other.config" in arguments:
        assert re.search(
            r"feature_mix_layer.conv.weight has the shape 96 x 48 x 1 x 1, the network's has 104 x ", found
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A folder with whatever the refusals name."""
    folder = tmp_path_factory.mktemp("scene")
    model = named_model()
    model.save(folder / "model.pt")
    config, weights = authors_files(folder, model.state)
    weights.rename(folder / "w")
    document = json.loads(config.read_text())
    document["feature_mix_layer"]["out_channels"] += 8
    document["classifier"]["in_features"] += 8
    (folder / "other.config").write_text(json.dumps(document))
    pictures = write_pictures(folder / "val", (*NAMES, "yak"), each=1)
    write_pictures(folder / "few", NAMES[:2], each=1)
    write_list(folder / "l", folder / "val", [pictures[0], pictures[7]], [0, 7])
    return folder


def test_weights_that_are_no_numbers(tmp_path, capsys):
    model = named_model()
    state = dict(model.state)
    state["classifier.linear.bias"] = torch.full((7,), float("nan"))
    named_model(state=state).save(tmp_path / "model.pt")
    write_pictures(tmp_path / "val", each=1)
    assert main(["--model_path", "model.pt", "--val_root", "val", *QUIET]) == 1
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "test-results").exists()


def test_a_damaged_picture_is_named(tmp_path, capsys):
    named_model().save(tmp_path / "model.pt")
    write_pictures(tmp_path / "val", each=2)
    (tmp_path / "val" / "cat" / "1.png").write_bytes(b"no picture")
    assert "val/cat/1.png" in refused(capsys, "--model_path", "model.pt", "--val_root", "val")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "out of memory at batch size 5; give a smaller --batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory at batch size 5"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a loader process died .*--workers"),
    ],
)
def test_short_memory_is_told(error, message):
    with pytest.raises(RunFailed, match=message), evaluating._memory_errors(5):
        raise error
    with pytest.raises(RuntimeError, match="another"), evaluating._memory_errors(5):
        raise RuntimeError("another")
