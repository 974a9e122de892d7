"""What a forecast adds up to, against counting the steps one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from small_search import small_config

import tfnas
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.differentiable import differentiable_search, search_conclusion
from tfnas.searching.differentiable.differentiable_search import DifferentiableSearch
from tfnas.searching.differentiable.search_config import space_schedule
from tfnas.searching.differentiable.search_setup import SearchSetup
from tfnas.searching.differentiable.search_text import Evaluations, Forecast, _typical_seconds
from tfnas.supernet.supernet import Supernet

ALONE = DistributedContext(0, 1, torch.device("cpu"))
WARMUP, WEIGHT, ARCHITECTURE = 1.0, 3.0, 10.0


@dataclass
class Place:
    """Where a session stands."""

    epoch: int
    step: int


def forecast_of(images):
    schedule = replace(space_schedule(tfnas.space("digits")), epochs=4, warmup_epochs=2, batch_size=10)
    nothing = dict.fromkeys(("config", "space", "space_flags", "table", "lookup_path"))
    setup = SearchSetup(schedule=schedule, data=SimpleNamespace(weights=range(images)), processes=ALONE, **nothing)
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


def test_what_is_evaluated_counts_too():
    """Probe networks after every epoch, a path in the last four of five epochs, and all of the conclusion."""
    schedule = replace(space_schedule(tfnas.space("digits")), epochs=5, warmup_epochs=4)
    evaluations = Evaluations(probes=8, path=12, conclusion=60, candidates=47)
    forecast = Forecast(schedule, 10, 1.0, 1.0, 0.0, evaluation=0.5, draw=0.1, saving=0.25, evaluations=evaluations)
    ends = [8 * 0.5 + 0.25 + (12 * 0.5 if epoch else 0.0) for epoch in range(5)]
    for epoch in range(6):
        step = 3 if epoch < 5 else 0
        assert forecast.done(Place(epoch, step)) == pytest.approx(10 * epoch + step + sum(ends[:epoch]))
    assert forecast.trained == pytest.approx(50 + sum(ends))
    assert forecast.total == pytest.approx(forecast.trained + 60 * 0.5 + 47 * 0.1)


@pytest.mark.parametrize(("steps", "rehearsed"), [(0, 1), (19, 1), (20, 2), (199, 19), (200, 20), (10**6, 20)])
def test_no_more_than_a_tenth_of_the_steps_is_rehearsed(steps, rehearsed):
    """After one that is not timed."""
    made = []
    _typical_seconds(lambda: made.append(None), steps)
    assert len(made) == 1 + rehearsed


@pytest.mark.parametrize("candidates", [1, 4])
def test_the_forecast_holds_what_a_search_does(tmp_path, monkeypatch, candidates):
    """Every evaluation of a network on a batch, and every candidate drawn, counted where they are made."""
    made = Counter()

    def along(supernet, *given, plain=Supernet.along):
        made[stage[-1]] += not torch.is_grad_enabled()
        return plain(supernet, *given)

    def drawn(*given, plain=search_conclusion.draw_candidates):
        found = plain(*given)
        made["drawn"] += len(found) - 1
        return found

    stage, searches = ["rehearsal"], []

    class Watched(DifferentiableSearch):
        def before_training(self):
            found = super().before_training()
            searches.append(self)
            stage.append("epochs")
            return found

        def conclude(self, show):
            stage.append("conclusion")
            return super().conclude(show)

    monkeypatch.setattr(Supernet, "along", along)
    monkeypatch.setattr(search_conclusion, "draw_candidates", drawn)
    monkeypatch.setattr(differentiable_search, "DifferentiableSearch", Watched)
    config = small_config(tmp_path, "run", candidates=candidates, batch_size=360)
    differentiable_search.search(config, Console(quiet=True))
    (search,) = searches
    number, schedule = search.forecast.evaluations, search.setup.schedule
    assert made["epochs"] == schedule.epochs * number.probes + min(schedule.epochs, 4) * number.path
    assert made["conclusion"] == number.conclusion and made["drawn"] == number.candidates
    assert search.concluded_seconds == pytest.approx(search.forecast.total - search.forecast.trained)
