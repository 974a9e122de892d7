"""The whole benchmark, tiny: killed on its way, it goes on, and reports what it would have reported."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from quality.settings import add_flags, read
from quality.training import Images, Recipe, evaluated, open_images, trained

import tfnas
from tfnas.core.errors import InputError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_quality.py"


def started(tmp_path, *flags):
    command = [sys.executable, str(SCRIPT), "--smoke", "--run_dir", str(tmp_path / "runs"), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(journal):
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.slow
def test_a_killed_run_goes_on_and_reports_everything(tmp_path) -> None:
    journal = tmp_path / "runs" / "journal.jsonl"
    process = started(tmp_path)
    while lines(journal) < 16:  # in the middle of the first random search
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.kill()
    process.communicate()
    kept = journal.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    process = started(tmp_path, "--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.png"))
    said, problems = process.communicate()
    assert process.returncode == 0, problems
    assert journal.read_bytes().startswith(kept)
    found = json.loads((tmp_path / "all.json").read_text())
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    identities = [
        json.dumps({k: v for k, v in json.loads(line).items() if k != "numbers"})
        for line in journal.read_text().splitlines()
    ]
    assert len(set(identities)) == len(identities)  # nothing was computed twice
    sizes = {name: group["networks"] for name, group in found["groups"].items()}
    assert sizes | {"deepest uniform": 1} == {
        "random": 6,
        "searched": 2,
        "re-ranked": 2,
        "random search": 2,
        "deepest uniform": 1,
        "largest by MACs": 1,
    }
    for network in found["networks"]:
        assert 0.995 * 11 <= network["table_ms"] <= 11
        assert len(network["loss"]) == len(network["top1"]) == 2
        assert network["measured_ms"] > 0
    assert len(found["supernet"]["searches"]) == 2
    assert all(name in said for name in sizes)
    reported = started(tmp_path, "--report", "--json", str(tmp_path / "again.json"))
    assert reported.communicate()[0] == said
    assert json.loads((tmp_path / "again.json").read_text()) == found


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "epochs"], "--set takes NAME=VALUE"),
        (["--set", "seed=3"], "--set takes NAME=VALUE"),
        (["--seeds", "1"], "--seeds must name two or more"),
        (["--seeds", "1", "1", "2"], "--seeds must name two or more that differ"),
        (["--search_seeds", "1", "1"], "--search_seeds must differ"),
        (["--random", "4"], "--random must be 5 or more, got 4"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, words) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    with pytest.raises(InputError, match=words):
        read(parser.parse_args(flags))
    with pytest.raises(InputError, match="--data cifar10: this benchmark is for embedded data, digits or digit_pairs"):
        open_images("cifar10", 32)


def test_searches_with_other_settings_are_kept_apart() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    said = ([], ["--set", "epochs=20"], ["--set", "epochs=21"], ["--name", "fair"], ["--target", "12"])
    digests = [read(parser.parse_args(flags)).search_digest for flags in said]
    assert len(set(digests)) == len(said)
    assert digests[0] == read(parser.parse_args(["--seeds", "5", "6"])).search_digest
    assert read(parser.parse_args(said[1])).search == {"epochs": 20}


@pytest.mark.parametrize("steps", [10, 300])
def test_the_learning_rate_rises_and_falls_to_nothing(steps) -> None:
    recipe = Recipe(steps=steps, lr=0.2, warmup_steps=4)
    rates = [recipe.learning_rate(step) for step in range(steps)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(rates[3])
    assert rates[steps // 2] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.2 * (3 / steps) ** 2


def test_training_is_decided_by_its_seed_and_learns(tmp_path) -> None:
    data = open_images("digits", 16)
    space = tfnas.space("digits")
    network = space.architecture([0] * 5, [1, 1, 1], [32, 48, 64, 64, 96], 10)
    recipe, some = Recipe(steps=60, batch_size=16, lr=0.05, warmup_steps=5), Images(*(part[:96] for part in data.test))
    models = [trained(network, data.weights, recipe, seed).eval() for seed in (0, 0, 1)]
    runs = [evaluated(model, some) for model in models]
    assert runs[0] == runs[1] != runs[2]
    assert all(run["top1"] > 40 and run["loss"] < 1.8 for run in runs)  # chance: 10 %, 2.3
    model = models[0]
    with torch.inference_mode():
        logits = torch.cat([model(data.test.pixels[place : place + 1]) for place in range(20)])
    twenty = Images(data.test.pixels[:20], data.test.labels[:20])
    chances = logits.double().softmax(1)[torch.arange(20), twenty.labels]
    assert evaluated(model, twenty)["loss"] == pytest.approx(float(-chances.log().mean()), rel=1e-4)
    assert evaluated(model, twenty)["top1"] == 5 * int((logits.argmax(1) == twenty.labels).sum())
