from __future__ import annotations

import math

import pytest

from tfnas.core.space import Schedule
from tfnas.searching.differentiable.architecture_parameters import (
    temperature,
    trains_architecture,
    weight_learning_rate,
)

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
