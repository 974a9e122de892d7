"""ScoreCalibration: what trains and judges, what a verdict says, and what is left out of the combination."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

import tfnas
from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig
from tfnas.data.opened_data import open_data
from tfnas.searching.reranking.rerank_result import calibrate, select_for_training
from tfnas.searching.reranking.train_from_scratch import TrainedTask, calibration_images, short_recipe

DIGITS = DataConfig(data="digits")
FEW_DIGITS = DataConfig(data="digits", val_ratio=0.05, test_ratio=0.9)
SMALL = tfnas.Architecture.parse(
    "i3x8_n10:conv_k3_s2_c8_relu:mb_k3_s1_m8_c8_relu:mb_k3_s1_m24_c12_relu:conv_k1_s1_c24_swish"
)
SIZES = {"images": (100, 1337), "epochs": 3}


def pictures(images):
    """The raw pictures of a set with their labels, as bytes."""
    found = []
    for source in images.sources:
        found += [(bytes(source.read(n).numpy()), source.labels[n]) for n in range(len(source.labels))]
    return found


def test_the_test_part_is_not_touched():
    parts = open_data(DIGITS, image_size=8, seed=0)
    images = calibration_images(DIGITS, 100, 8)
    train, judged = pictures(images.to_train), pictures(images.to_evaluate)
    assert sorted(train + judged) == sorted(pictures(parts.weights) + pictures(parts.architecture))
    assert len(train) == pytest.approx(100, abs=5)
    counts = np.bincount([label for _, label in train])
    assert counts.min() >= 9 and counts.max() <= 11
    whole = calibration_images(DIGITS, None, 8)
    assert (len(whole.to_train), len(whole.to_evaluate)) == (len(parts.weights), len(parts.architecture))


@pytest.mark.parametrize("count", [9, 2000])
def test_more_or_fewer_images_than_there_are(count):
    with pytest.raises(InputError, match=f"--calibrate_images must be 10 .* to 10[0-9]+ .*, got {count}"):
        calibration_images(DIGITS, count, 8)


def test_the_short_recipe():
    recipe = short_recipe(DIGITS, 7, 1000)
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.dropout_rate) == (7, 32, 0.1, 0.0)
    few = short_recipe(DIGITS, 7, 8)
    assert few.batch_size == 8 and few.lr == pytest.approx(0.1 * 8 / 32)


def trained_top1(data, seed, epochs, images):
    recipe = short_recipe(data, epochs, images)
    return TrainedTask(SMALL.to_text(), data, images, recipe, seed, "cpu", 0).compute()


def test_training_is_decided_by_its_seed():
    before = torch.get_rng_state()
    first, again, other = (trained_top1(FEW_DIGITS, seed, 1, 40) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_training_learns():
    assert trained_top1(DIGITS, 1, 12, 600) > 40  # chance is 10


def made_up_top1(task):
    """An accuracy of an architecture and a seed."""
    return 50 + random.Random(task.architecture).uniform(0, 10) + task.seed


def test_who_is_trained():
    numbers = select_for_training(64, 16, seed=3)
    assert len(set(numbers)) == 16 and numbers[0] == 0 and list(numbers) == sorted(numbers)
    assert numbers == select_for_training(64, 16, seed=3) != select_for_training(64, 16, seed=4)
    assert select_for_training(6, 16, seed=3) == (0, 1, 2, 3, 4, 5)


def verdicts(measures, runs):
    found = calibrate(range(len(runs)), runs, measures, **SIZES)
    return found, {verdict.measure: verdict for verdict in found.verdicts}


def test_what_beats_macs():
    accuracy = [50.0, 60, 55, 70, 65, 80, 75, 90]
    macs = [1.0, 2, 3, 4, 5, 6, 7, 8]
    worse = [8.0, 1, 7, 2, 6, 3, 5, 4]
    measures = {
        "good": accuracy,
        "same": [2 * value for value in macs],
        "worse": worse,
        "flat": [1.0] * 8,
        "macs": macs,
    }
    found, by_name = verdicts(measures, [[value] for value in accuracy])
    assert {name: verdict.beats_macs for name, verdict in by_name.items()} == {
        "good": True,
        "same": False,
        "worse": False,
        "flat": False,
        "macs": None,
    }
    assert by_name["good"].tau.value == pytest.approx(1) and by_name["flat"].tau is None
    assert by_name["same"].tau == by_name["macs"].tau and by_name["same"].share_beating_macs == 0.5
    assert found.not_useful(["good", "same", "flat"]) == ("same", "flat")
    assert found.top1 == tuple(accuracy) and found.seed_spread is None
    assert found.spread == pytest.approx(np.std(accuracy, ddof=1))


def test_where_macs_mislead_less_misleading_is_not_enough():
    accuracy = [50.0, 55, 60, 65, 70, 75, 80, 90]
    measures = {"macs": accuracy[::-1], "bad": [6.0, 8, 7, 4, 5, 2, 3, 1], "good": [2.0, 1, 3, 4, 6, 5, 7, 8]}
    found, by_name = verdicts(measures, [[value] for value in accuracy])
    assert by_name["bad"].beats_macs and -1 < by_name["bad"].tau.value < 0
    assert found.not_useful(["bad", "good"]) == ("bad",)


def test_trainings_of_one_network_are_averaged():
    numbers = np.random.default_rng(0)
    runs = (70 + numbers.normal(size=(8, 1)) + 0.1 * numbers.normal(size=(8, 3))).tolist()
    found, _ = verdicts({"macs": list(range(8))}, runs)
    assert found.top1 == pytest.approx([sum(row) / 3 for row in runs])
    assert found.seeds == 3
    assert found.seed_spread == pytest.approx(np.sqrt(np.mean([np.var(row, ddof=1) for row in runs])))


def test_accuracies_that_are_all_alike_say_nothing():
    _, by_name = verdicts({"zen": list(range(8)), "macs": list(range(8))}, [[90.0]] * 8)
    assert by_name["zen"].tau is None and by_name["zen"].beats_macs is False


@pytest.mark.parametrize("trains", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_calibrating_a_run(searched, reranked, monkeypatch, trains):
    if not trains:
        monkeypatch.setattr(TrainedTask, "compute", made_up_top1)
    before = (searched / "architecture.json").read_bytes()
    training = {"calibrate": 6, "calibrate_epochs": 1, "calibrate_images": 200}
    result = reranked(scores="flops,entropy", **training)
    calibration = result.calibration
    assert len(calibration.numbers) == 6 and calibration.numbers[0] == 0
    rows = {row["candidate"]: row["trained_top1"] for row in result.rows()}
    assert {number for number, top1 in rows.items() if top1 is not None} == set(calibration.numbers)
    names = [verdict.measure for verdict in calibration.verdicts]
    assert sorted(names) == ["entropy", "flops", "inherited", "macs", "params", "preference"]
    assert "flops" not in result.used  # they are MACs
    document = json.loads((searched / "rerank.json").read_text())["calibration"]
    parts = open_data(DIGITS, image_size=8, seed=0)
    assert document["images"]["judged"] + document["images"]["trained"] == len(parts.weights) + len(parts.architecture)
    for verdict in document["verdicts"]:
        assert verdict["tau"] is None or verdict["interval"][0] <= verdict["tau"] <= verdict["interval"][1]
    log = (searched / "log.txt").read_text()
    assert "Kendall's tau" in log and "left out  flops" in log
    # nothing is left to rank by: the derived one stays, whatever --pick says; and nothing is trained again
    alone = reranked(scores="flops", pick="rank", **training)
    assert alone.calibration.top1 == calibration.top1
    assert alone.used == () and alone.selected == 0
    assert (searched / "architecture.json").read_bytes() == before
    document = json.loads((searched / "rerank.json").read_text())
    assert document["derived_rank"] is None and document["picked"]["by"] == "derived"
    assert document["candidates"][0]["rank"] is None and document["candidates"][0]["candidate"] == 0
    assert "none of the scores beats MACs and chance" in (searched / "log.txt").read_text()


@pytest.mark.parametrize("scores", ["params,random", "random"])
def test_a_control_is_never_combined(searched, reranked, monkeypatch, scores):
    """Even where it foretells accuracy better than all else; and not without a calibration either."""
    first = reranked(scores=scores, pick="rank")
    assert first.used == tuple(name for name in scores.split(",") if name != "random")
    text_of = {candidate.architecture.to_text(): number for number, candidate in enumerate(first.candidates)}
    chance = first.measure("random").values
    monkeypatch.setattr(TrainedTask, "compute", lambda task: 50 + chance[text_of[task.architecture]])
    result = reranked(scores=scores, calibrate=8, pick="rank")
    verdict = next(verdict for verdict in result.calibration.verdicts if verdict.measure == "random")
    assert verdict.tau.value == pytest.approx(1) and verdict.beats_macs
    assert "random" not in result.used
    assert json.loads((searched / "rerank.json").read_text())["directions"]["random"] == "higher"
    log = (searched / "log.txt").read_text()
    assert "random is a control and never combined" in log
    if scores == "random":
        assert first.selected == result.selected == 0
        assert "there is no combined ranking: no scores to rank by were given" in log


def test_a_calibration_goes_round_by_round(searched, reranked, monkeypatch):
    """All candidates have their first training before any has its second: ended early, fewer seeds are whole."""
    monkeypatch.setattr(TrainedTask, "compute", made_up_top1)
    result = reranked(scores="flops", calibrate=6, calibrate_images=200, calibrate_seeds=2)
    lines = [json.loads(line) for line in (searched / "rerank.journal").read_text().splitlines()]
    rounds = [line for line in lines if line["measure"] == "trained"]
    assert [line["settings"]["seed"] for line in rounds] == [0] * 6 + [1] * 6
    calibration = result.calibration
    for number, top1 in calibration.top1_by_number.items():
        text = result.candidates[number].architecture.to_text()
        assert top1 == pytest.approx(50.5 + random.Random(text).uniform(0, 10))
    assert calibration.seed_spread == pytest.approx(np.std([0, 1], ddof=1))
    assert calibration.spread > 0
