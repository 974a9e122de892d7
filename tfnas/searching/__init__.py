"""Latency-constrained differentiable architecture search (TF-NAS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.searching.config import SearchConfig

if TYPE_CHECKING:
    from tfnas.searching.loop import SearchResult, search

__all__ = ["SearchConfig", "SearchResult", "search"]

__getattr__ = lazy_names("tfnas.searching", {"SearchResult": "tfnas.searching.loop", "search": "tfnas.searching.loop"})
