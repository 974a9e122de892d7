"""Re-ranking inside the latency band: other networks of a search's target, by zero-shot scores and trained accuracy.

from tfnas.reranking import RerankConfig, rerank
rerank(RerankConfig(model_path="runs/search-20260131-120000", scores="zen,naswot"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.reranking.config import ParseAndRerankConfig, RerankConfig

if TYPE_CHECKING:
    from tfnas.reranking.reranking import rerank
    from tfnas.reranking.result import Reranking

__all__ = ["ParseAndRerankConfig", "RerankConfig", "Reranking", "rerank"]

__getattr__ = lazy_names(
    "tfnas.reranking", {"Reranking": "tfnas.reranking.result", "rerank": "tfnas.reranking.reranking"}
)
