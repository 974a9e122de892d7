"""Latency-constrained differentiable architecture search (TF-NAS)."""

from tfnas.search.config import SearchConfig
from tfnas.search.loop import SearchResult, run_search

__all__ = ["SearchConfig", "SearchResult", "run_search"]
