"""A finished small search of one's own, and re-ranking it in this process."""

from __future__ import annotations

import shutil

import pytest
from made_tasks import PICTURE
from rich.console import Console

FEW = {"scores": "flops,params", "num_candidates": 8, "jobs": 1, "seed": 0, "device": "cpu"}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Drawing takes longer than all else that a small re-ranking does."""
    monkeypatch.setattr("tfnas.searching.reranking.rerank.rerank_picture", lambda _: PICTURE)


def rerank_with(run_dir, **settings):
    from tfnas.searching.reranking.rerank import rerank
    from tfnas.searching.reranking.rerank_config import RerankConfig

    return rerank(RerankConfig(model_path=str(run_dir), **{**FEW, **settings}), Console(quiet=True))


@pytest.fixture(scope="session")
def known_numbers(small_search, tmp_path_factory):
    """The journal of the small search re-ranked with few candidates: what takes long need not be computed again."""
    run_dir = shutil.copytree(small_search, tmp_path_factory.mktemp("known") / "searched")
    rerank_with(run_dir)
    return run_dir / "rerank.journal"


@pytest.fixture
def searched(small_search, tmp_path):
    """A copy of the finished small search, with its table at the place that the copy names."""
    return shutil.copytree(small_search, tmp_path / "searched")


@pytest.fixture
def reranked_anew(searched):
    """Re-ranks the copy with these settings."""
    return lambda **settings: rerank_with(searched, **settings)


@pytest.fixture
def reranked(searched, known_numbers, reranked_anew):
    """Re-ranks the copy with these settings, going on with the numbers that are known."""
    shutil.copy(known_numbers, searched)
    return reranked_anew
