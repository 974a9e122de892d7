"""`--recipe paper`: the paper's procedure in any space, for as long as the space says."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from small_search import small_config

import tfnas
from tfnas.cli import train_search
from tfnas.core.errors import InputError
from tfnas.runs.resumption import resumed_config
from tfnas.runs.run_settings import SEARCH_MAY_CHANGE
from tfnas.searching.differentiable.search_config import Schedule, SearchConfig, space_schedule
from tfnas.searching.differentiable.search_setup import prepare

PAPER = {
    "w_lr": 0.025,
    "w_mom": 0.9,
    "w_wd": 1e-5,
    "a_lr": 0.01,
    "a_wd": 5e-4,
    "a_beta1": 0.5,
    "a_beta2": 0.999,
    "grad_clip": 5.0,
    "T": 5.0,
    "T_decay": 0.96,
    "lambda_lat": 0.1,
    "shared_weights": False,
    "sampled_depth": False,
    "candidates": 1,
}
OWN = ("epochs", "warmup_epochs", "batch_size", "threads")


@pytest.mark.parametrize("name", ["digits", "cifar", "imagenet"])
def test_everything_but_length_batch_and_threads_is_the_papers(name):
    own = space_schedule(tfnas.space(name))
    found = dataclasses.asdict(SearchConfig(recipe="paper").schedule(own))
    assert {field: found.pop(field) for field in OWN} == {field: getattr(own, field) for field in OWN}
    assert found.items() >= PAPER.items()
    defaults = dataclasses.asdict(Schedule())  # whatever else a schedule has
    assert found == {field: defaults[field] for field in found}


def test_single_flags_win():
    own = space_schedule(tfnas.space("digits"))
    config = SearchConfig(recipe="paper", a_lr=0.2, shared_weights=True, epochs=50, warmup_epochs=9)
    plain = SearchConfig(recipe="paper").schedule(own)
    changed = dataclasses.replace(plain, a_lr=0.2, shared_weights=True, epochs=50, warmup_epochs=9)
    assert config.schedule(own) == changed != plain
    assert SearchConfig().schedule(own) == own != plain


def test_a_resumed_run_keeps_it(tmp_path):
    setup = prepare(small_config(tmp_path, "run", recipe="paper", w_mom=0.8))
    saved = yaml.safe_load(yaml.safe_dump(dataclasses.asdict(setup.effective())))
    assert saved["recipe"] == "paper" and saved["w_lr"] == 0.025 and saved["w_mom"] == 0.8 and saved["epochs"] == 3
    again = resumed_config(SearchConfig(resume="run"), saved, None, may_change=SEARCH_MAY_CHANGE)
    assert prepare(again).schedule == setup.schedule
    del saved["recipe"]
    with pytest.raises(InputError, match="--recipe paper differs from the run's own None"):
        resumed_config(SearchConfig(resume="run", recipe="paper"), saved, None, may_change=SEARCH_MAY_CHANGE)


def test_the_flag(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "tfnas.searching.differentiable.differentiable_search.search", lambda config, given: asked.append(config)
    )
    assert train_search.main(["--recipe", "paper", "--T", "3"]) == 0
    assert asked == [SearchConfig(recipe="paper", T=3.0)]
    assert train_search.main(["--recipe=papers"]) == 2
    assert "--recipe must be one of paper, got 'papers'" in capsys.readouterr().err
