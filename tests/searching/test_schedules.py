from __future__ import annotations

import math

import pytest
import yaml
from small_search import small_config

import tfnas
from tfnas.core.errors import InputError
from tfnas.searching.differentiable.architecture_parameters import (
    temperature,
    trains_architecture,
    weight_learning_rate,
)
from tfnas.searching.differentiable.search_config import Schedule, space_schedule
from tfnas.searching.differentiable.search_setup import prepare

PAPER = Schedule()


def test_the_learning_rate_falls_along_a_cosine():
    assert weight_learning_rate(PAPER, 0) == 0.025
    assert weight_learning_rate(PAPER, 30) == pytest.approx(0.025 * 3 / 4)  # cos(60 degrees) is a half
    assert weight_learning_rate(PAPER, 45) == pytest.approx(0.0125)
    assert weight_learning_rate(PAPER, 60) == pytest.approx(0.025 / 4)
    last = weight_learning_rate(PAPER, 89)
    assert last == pytest.approx(0.025 * math.sin(math.pi / 180) ** 2)


def test_the_architecture_is_trained_after_the_warm_up():
    assert [trains_architecture(PAPER, epoch) for epoch in (0, 9, 10, 89)] == [False, False, True, True]
    assert trains_architecture(Schedule(warmup_epochs=0), 0)


def test_the_temperature_falls_after_each_epoch_that_trained_the_architecture():
    assert [temperature(PAPER, epoch) for epoch in (0, 9, 10)] == [5.0, 5.0, 5.0]
    assert temperature(PAPER, 11) == pytest.approx(4.8)
    assert temperature(PAPER, 12) == pytest.approx(4.608)
    expected = 5.0
    for _ in range(79):
        expected *= 0.96
    assert temperature(PAPER, 89) == pytest.approx(expected)


@pytest.mark.parametrize(("change", "message"), [
    ({"epoch": 3}, r"unknown field schedule.epoch \(did you mean epochs\?\)"),
    ({"shared_weights": 1}, "schedule.shared_weights must be true or false"),
    ({"w_lr": -1.0}, "schedule: w_lr must be above 0"),
    ({"w_mom": 1.0}, "schedule: w_mom must be below 1"),
    ({"T_decay": 1.1}, "schedule: T_decay must be at most 1"),
    ({"warmup_epochs": 99}, r"schedule: warmup_epochs \(99\) must be below epochs"),
    ({"w_lr": "0.1"}, None),
])  # fmt: skip
def test_a_wrong_schedule_says_which_file_and_field(tmp_path, change, message):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"extends": "digits", "schedule": change}))
    space = tfnas.space(file)
    if message is None:
        assert space_schedule(space).w_lr == 0.1
        return
    with pytest.raises(InputError, match=f"space mine: {message}"):
        space_schedule(space)
    with pytest.raises(InputError, match=message) as refused:
        prepare(small_config(tmp_path, "run", space=str(file)))
    assert str(file) in str(refused.value)
