"""A finished small search of one's own, and re-ranking it in this process."""

from __future__ import annotations

import shutil

import pytest
from rich.console import Console


@pytest.fixture
def searched(small_search, tmp_path):
    """A copy of the finished small search, with its table at the place that the copy names."""
    return shutil.copytree(small_search, tmp_path / "searched")


@pytest.fixture
def reranked(searched):
    """Re-ranks the copy with these settings."""
    from tfnas.reranking import RerankConfig, rerank

    def run(**settings):
        few = {"scores": "flops,params", "num_candidates": 8, "jobs": 1, "seed": 0, "device": "cpu"}
        return rerank(RerankConfig(model_path=str(searched), **{**few, **settings}), Console(quiet=True))

    return run
