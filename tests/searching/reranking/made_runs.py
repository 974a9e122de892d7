"""Re-ranking as the work of a process of its own, which imports this module."""

from __future__ import annotations

from pathlib import Path

NUM_CANDIDATES = 8


def rerank_quietly(run_dir: Path) -> None:
    from rich.console import Console

    from tfnas.searching.reranking.rerank import rerank
    from tfnas.searching.reranking.rerank_config import RerankConfig

    settings = {"scores": "zen,naswot,grad_norm", "num_candidates": NUM_CANDIDATES, "jobs": 1, "device": "cpu"}
    rerank(RerankConfig(model_path=str(run_dir), **settings), Console(quiet=True))
