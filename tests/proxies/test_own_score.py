"""A score from outside the package: registered, or under the entry point group; scored and ranked by like any other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import own_score
import pytest
from made_networks import digits_architecture

import tfnas
from tfnas.cli import rerank
from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.proxies import score as scores
from tfnas.proxies.score import ENTRY_POINTS, Score, find_score, register_score, score_names
from tfnas.spaces import families


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(scores, "_registered", {})


def params_of(architecture):
    return sum(parameter.numel() for parameter in tfnas.Network(architecture).parameters())


def test_a_registered_score_is_known_everywhere():
    with pytest.raises(InputError, match="no score 'mine': give one of zen, naswot"):
        find_score("mine")
    register_score(own_score.SCORE)
    architecture = digits_architecture()
    assert tfnas.score("mine", architecture) == params_of(architecture)
    assert tfnas.score("mine", architecture.to_text()) == params_of(architecture)
    assert score_names()[-1] == "mine"


def test_a_name_stands_for_one_score():
    register_score(own_score.SCORE)
    register_score(own_score.SCORE)  # the same again
    for name in ("mine", "zen"):
        other = Score(name=name, higher_is_better=True, cost="analytic", summary="", measure=lambda *_: 0.0)
        with pytest.raises(ValueError, match=f"there is a score '{name}' already"):
            register_score(other)
    assert find_score("mine") is own_score.SCORE and find_score("zen").cost == "forward"


def test_a_score_of_an_installed_package(monkeypatch):
    installed = EntryPoint("mine", "own_score:SCORE", ENTRY_POINTS)

    def entry_points(*, group, name="mine"):
        return [installed] if (group, name) == (ENTRY_POINTS, "mine") else []

    monkeypatch.setattr(scores, "entry_points", entry_points)
    assert "mine" in score_names() and score_names().count("mine") == 1
    assert find_score("mine") is own_score.SCORE
    with pytest.raises(InputError, match=r"no score 'yours': give one of zen, .*, mine\b"):
        find_score("yours")


def test_ranking_by_a_registered_score(small_search, tmp_path, monkeypatch):
    """In other processes too, which have not registered it."""
    monkeypatch.setattr("tfnas.searching.reranking.rerank.rerank_picture", lambda _: b"")
    run = shutil.copytree(small_search, tmp_path / "searched")
    register_score(own_score.SCORE)
    settings = "--scores mine --num_candidates 6 --jobs 2 --device cpu"
    assert rerank.main(["--model_path", str(run), *settings.split()]) == 0
    document = json.loads((run / "rerank.json").read_text())
    assert document["combined"] == ["mine"] and len(document["candidates"]) == 6
    found = [row["mine"] for row in document["candidates"]]
    assert found == [params_of(Architecture.parse(row["architecture"])) for row in document["candidates"]]
    assert found == sorted(found, reverse=True)


def test_an_architecture_of_a_family_from_outside(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "spaces")
    from toy_family import FAMILY

    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    families.register_family(FAMILY)
    architecture = FAMILY.sample(np.random.default_rng(0))
    register_score(own_score.SCORE)
    expected = sum(parameter.numel() for parameter in FAMILY.build(architecture).parameters())
    assert tfnas.score("mine", architecture) == tfnas.score("mine", architecture.to_text()) == expected
    assert tfnas.score("params", architecture) == expected
    with pytest.raises(InputError, match="entropy needs an architecture or a structure"):
        tfnas.score("entropy", architecture)


def test_analytic_scores_need_no_torch():
    names = "flops", "params", "random", "entropy", "multiscale_entropy"
    text = digits_architecture().to_text()
    code = f"import sys, tfnas; [tfnas.score(name, {text!r}) for name in {names}]; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
