"""What a forecast adds up to, against counting the steps one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

import tfnas
from tfnas.processes import Processes
from tfnas.searching.forecast import Forecast
from tfnas.searching.setup import Setup

ALONE = Processes(0, 1, torch.device("cpu"))
WARMUP, WEIGHT, ARCHITECTURE = 1.0, 3.0, 10.0


@dataclass
class Place:
    """Where a session stands."""

    epoch: int
    step: int


def forecast_of(images):
    schedule = replace(tfnas.space("digits").schedule, epochs=4, warmup_epochs=2, batch_size=10)
    nothing = dict.fromkeys(("config", "space", "table", "lookup_path"))
    setup = Setup(schedule=schedule, data=SimpleNamespace(weights=range(images)), processes=ALONE, **nothing)
    return setup, Forecast(schedule, setup.steps_per_epoch, WARMUP, WEIGHT, ARCHITECTURE)


@pytest.mark.parametrize(("images", "steps"), [(60, 6), (61, 7), (69, 7), (1, 1)])
def test_the_whole_run_is_the_sum_of_its_steps(images, steps):
    setup, forecast = forecast_of(images)
    assert setup.steps_per_epoch == steps
    seconds = [0.0]
    for epoch in range(4):
        for step in range(steps):
            later = WEIGHT + (ARCHITECTURE if step % 2 == 0 else 0)  # an architecture step on every second weight step
            seconds.append(seconds[-1] + (WARMUP if epoch < 2 else later))
    assert forecast.total == seconds[-1]
    for epoch in range(5):
        assert forecast.done(Place(epoch, 0)) == seconds[epoch * steps]
    for step in range(steps):
        assert forecast.done(Place(1, step)) == seconds[steps + step]
        assert abs(forecast.done(Place(2, step)) - seconds[2 * steps + step]) < ARCHITECTURE  # spread over the epoch
