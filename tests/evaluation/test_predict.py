"""`tfnas predict`: its probabilities against numpy, its two forms, and pictures that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.made_models import (
    NAMES,
    PREPROCESSING,
    logits_by_hand,
    named_model,
    seven_classes,
    varied_network,
    write_pictures,
)
from tfnas import TrainedModel
from tfnas.cli.predict import main
from tfnas.core.errors import InputError
from tfnas.evaluation import predicting
from tfnas.evaluation.evaluation_config import PredictConfig
from tfnas.evaluation.predicting import predict


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    """A model that is not too sure, and pictures in sub-folders."""
    network = varied_network(seven_classes(), 3)
    network.classifier.linear.weight.data /= 20
    named_model(state=network.state_dict()).save(tmp_path / "model.pt")
    return write_pictures(tmp_path / "photos", ("a", "b"), each=4)


def asked(*arguments, model="model.pt"):
    return main(["--model_path", model, "--threads", "1", *map(str, arguments)])


def probabilities_by_hand(model, pictures):
    logits = logits_by_hand(model.network(), pictures, PREPROCESSING)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_json_lines_by_hand(tmp_path, pictures, capsys, batch_size):
    assert asked("photos", "--json", "--top", "3", "--batch_size", batch_size) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == [f"photos/{path.parent.name}/{path.name}" for path in pictures]
    for answer, row in zip(answers, probabilities_by_hand(TrainedModel.load("model.pt"), pictures), strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        assert [found["number"] for found in answer["classes"]] == order.tolist()
        assert [found["name"] for found in answer["classes"]] == [NAMES[number] for number in order]
        assert [found["probability"] for found in answer["classes"]] == pytest.approx(row[order], rel=1e-4, abs=1e-9)


def test_text_and_more_classes_than_there_are(pictures, capsys):
    assert asked(pictures[0], "--top", "50") == 0
    name, *lines = capsys.readouterr().out.splitlines()
    assert name == str(pictures[0])
    assert sorted(line.split(" %  ")[1] for line in lines) == sorted(NAMES)
    values = [float(line.split()[0]) for line in lines]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(100, abs=0.04)


def test_what_cannot_be_read_is_named_and_the_rest_answered(tmp_path, pictures, capsys):
    pictures[1].write_bytes(pictures[1].read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    endless = "x" * 300  # no file system has such a name
    assert asked("photos", "missing.png", endless, "empty", "notes.txt", "--json", "--batch_size", "2") == 2
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    problems = {answer["image"]: answer["problem"] for answer in answers if "problem" in answer}
    damaged = str(pictures[1].relative_to(tmp_path))
    assert list(problems) == [damaged, "missing.png", endless, "empty", "notes.txt"]
    assert damaged in problems[damaged]
    assert "contains no image" in problems["empty"]
    assert sum("classes" in answer for answer in answers) == 7
    told = err.splitlines()
    assert len(told) == 6
    names = f"{damaged}, missing.png, {endless}, empty, notes.txt"
    assert told[-1].endswith(f"5 of 12 images could not be read, the others were classified: {names}")


def test_names_that_begin_with_a_dash_or_are_no_text(tmp_path, pictures, capfd):
    strange = os.fsdecode(b"caf\xe9.png")
    for name in ("-a.png", strange):
        (tmp_path / name).write_bytes(pictures[0].read_bytes())
    assert asked("--top", "1", "--", "-a.png", strange) == 0
    assert [line for line in capfd.readouterr().out.splitlines() if "%" not in line] == ["-a.png", "caf\ufffd.png"]
    assert asked("-a.png") == 2
    assert "unknown flag -a.png; a file of that name goes behind --" in capfd.readouterr().err


def test_no_more_than_a_batch_is_read_ahead(pictures, monkeypatch):
    read = []
    monkeypatch.setattr(predicting, "read_rgb", lambda *where, real=predicting.read_rgb: read.append(0) or real(*where))
    answers = predict(PredictConfig(model_path="model.pt", images=("photos",), batch_size=3))
    next(answers)
    assert len(read) == 3
    assert len(list(answers)) == 7
    assert len(read) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_path", "model.pt"], "give one or more images, or folders of images"),
        (["x.png"], "which network? Give --model_path RUN"),
        (["--model_path", "nowhere", "x.png"], "nowhere cannot be read"),
        (["--model_path", "x" * 300, "x.png"], "cannot be read"),
        (["--model_path", "nowhere.onnx", "x.png"], "nowhere.onnx cannot be read"),
        (["--model_path", "x.onnx", "--device", "cuda", "x.png"], "ONNX files run on the CPU"),
        (["--model_path", "model.pt", "x.png", "--top", "0"], "top is 0; it must be at least 1"),
        (["--model_path", "model.pt", "x.png", "--topp", "3"], "unknown flag --topp (did you mean --top?)"),
    ],
)
def test_refused(pictures, capsys, arguments, message):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_outputs_that_are_no_numbers(pictures, capsys):
    state = named_model().state
    named_model(state={**state, "classifier.linear.bias": torch.full((7,), float("nan"))}).save(Path("broken.pt"))
    assert asked("photos", model="broken.pt") == 1
    assert "not finite" in capsys.readouterr().err


@pytest.mark.slow  # exporting takes ten seconds
def test_an_exported_file_gives_the_same_probabilities(pictures, capsys):
    from tfnas.export.export_config import ExportConfig
    from tfnas.export.exporting import export_model

    export_model(ExportConfig(model_path="model.pt", img_root="photos", check_images=4))
    found = []
    for model in ("model.pt", "model.onnx"):
        assert asked("photos", "--json", "--top", "7", model=model) == 0
        found.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for own, exported in zip(*found, strict=True):
        assert own["image"] == exported["image"]
        values = [{entry["name"]: entry["probability"] for entry in answer["classes"]} for answer in (own, exported)]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-7)


def test_a_setting_out_of_range_in_python():
    with pytest.raises(InputError, match="threads is 0"):
        PredictConfig(model_path="m", images=("a",), threads=0)
