"""Latency-constrained differentiable architecture search (TF-NAS)."""

from tfnas.searching.config import SearchConfig
from tfnas.searching.loop import SearchResult, search

__all__ = ["SearchConfig", "SearchResult", "search"]
